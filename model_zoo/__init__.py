"""The only home of transformers, diffusers, peft and bitsandbytes."""
