"""Small tools for every room, without any few-shot learning."""
