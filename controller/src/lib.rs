//! Store, reconciliation and API.
