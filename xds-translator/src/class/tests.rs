//! Table tests of classification.
