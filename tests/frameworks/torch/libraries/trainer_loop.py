# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer as its users write it. It knows nothing of xhal."""

import json
import sys
import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

torch.manual_seed(0)
model = BertForSequenceClassification(
    BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=100,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
    )
)
random = torch.Generator().manual_seed(1)
data = [
    {
        "input_ids": torch.randint(0, 100, (16,), generator=random),
        "labels": int(torch.randint(0, 3, (1,), generator=random)),
    }
    for _ in range(64)
]
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=4,
        max_steps=int(sys.argv[1]),
        logging_steps=1,
        learning_rate=1e-3,
        report_to=[],
        save_steps=5,
        use_cpu="--cpu" in sys.argv,
        bf16="--bf16" in sys.argv,
        disable_tqdm=True,
        seed=3,
    )
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        device = next(model.parameters()).device.type
        ranks = trainer.args.world_size
        print(json.dumps({"device": device, "ranks": ranks, "losses": losses}))
