"""The Flask front end: HTTP in, job record and queue message out. Never imports torch."""
