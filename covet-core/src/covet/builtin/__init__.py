"""The plugins that the kernel brings. They use public hooks and public names only, and each can be disabled."""
