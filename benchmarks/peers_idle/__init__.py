"""The smallest application of a framework, exported as `app`: one route that answers with text."""
