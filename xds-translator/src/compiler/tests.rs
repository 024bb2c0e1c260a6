//! Property and table tests of the compiler.
