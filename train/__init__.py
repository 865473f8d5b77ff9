"""The trainer; the only home of deepspeed. Run from the checkout: `python -m train run PRESET`."""
