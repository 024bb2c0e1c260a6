//! Table tests of lowering.
