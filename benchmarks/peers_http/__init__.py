"""One application per peer, each exported as `app`: the same five answers, written as the peer's own users would."""
