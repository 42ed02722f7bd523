"""Every fault in every use: right bytes, or an exception that says what happened; nothing left half-written."""
