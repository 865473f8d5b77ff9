"""Export and import of banks: a folder with JSONL, Parquet, WebDataset."""

from memory_bank.exchange.transfer import Imported, embedder_of, export_bank, import_bank

__all__ = ["Imported", "embedder_of", "export_bank", "import_bank"]
