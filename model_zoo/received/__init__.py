"""Checks of model folders, which may come from anyone, before a library reads them."""
