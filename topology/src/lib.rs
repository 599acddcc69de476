//! Nodes, legs, quality estimators and path choice, without I/O.
