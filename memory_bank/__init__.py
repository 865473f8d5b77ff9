"""The Online Emotional Memory Bank; the only home of faiss."""
