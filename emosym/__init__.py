"""EmoSym: one multimodal model that understands and generates emotion."""
