"""TF Serving's gRPC API over models of ours."""
