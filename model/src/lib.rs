//! Kuafu's kinds as validated types, and intent compiled to map contents.
