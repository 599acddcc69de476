//! The messages between controller, agents and CLI.
