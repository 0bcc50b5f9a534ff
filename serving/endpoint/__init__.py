"""Serves our models with TF Serving's gRPC API."""
