"""An ordinary trl script: fine-tune a small model on English commands. sft_after.py shows the changes.

python examples/sft_before.py MODEL
"""

import sys

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

name = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name)
commands = [("wake me up at nine", "time: nine"), ("turn on the light in the kitchen", "place: kitchen")] * 32
dataset = Dataset.from_list([{"prompt": text + "\n", "completion": slots} for text, slots in commands])

trainer = SFTTrainer(
    model,
    args=SFTConfig(output_dir="runs/example", max_steps=20, report_to="none"),
    train_dataset=dataset,
    processing_class=tokenizer,
    peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"),
)
trainer.train()
trainer.save_model("runs/example/adapter")
