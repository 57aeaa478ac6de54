"""Hashes of files and folders: what a run was given, also behind links."""

from midalign.files import hash_paths


def test_hashes_change_with_content_and_with_names_but_not_with_the_order_of_writing(tmp_path):
    for name, order in (("a", "xy"), ("b", "yx")):
        (tmp_path / name).mkdir()
        for file in order:
            (tmp_path / name / file).write_text(file)
    first, second = hash_paths([tmp_path / "a", tmp_path / "b"]).values()
    assert first == second
    (tmp_path / "b" / "x").write_text("changed")
    assert hash_paths([tmp_path / "b"]) != {str(tmp_path / "b"): first}
    (tmp_path / "b" / "x").write_text("x")
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "z")
    assert hash_paths([tmp_path / "b"]) != {str(tmp_path / "b"): first}
    assert hash_paths(["owner/dataset"]) == {}
    before = hash_paths([tmp_path / "a"])
    (tmp_path / "a" / "manifest.json").write_text("when it was made")
    assert hash_paths([tmp_path / "a"]) == before
    assert list(hash_paths([tmp_path / "a" / "x"])) == [str(tmp_path / "a" / "x")]


def test_hashes_follow_links_to_folders_as_the_readers_do(tmp_path):
    for name in ("big", "linked", "copied"):
        (tmp_path / name).mkdir()
    (tmp_path / "big" / "a").write_text("a")
    (tmp_path / "copied" / "test").mkdir()
    (tmp_path / "copied" / "test" / "a").write_text("a")
    (tmp_path / "linked" / "test").symlink_to(tmp_path / "big")
    linked, copied = hash_paths([tmp_path / "linked", tmp_path / "copied"]).values()
    assert linked == copied
    (tmp_path / "big" / "round").symlink_to(tmp_path / "linked")
    assert list(hash_paths([tmp_path / "linked"]).values()) == [linked], "not round in a circle"
    (tmp_path / "big" / "a").write_text("b")
    assert list(hash_paths([tmp_path / "linked"]).values()) != [linked]
