"""Every fault in every use: right bytes, or an exception that says what happened; nothing half-written, nothing left behind."""
