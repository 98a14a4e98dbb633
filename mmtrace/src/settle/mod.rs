//! The experiments that decide the claims.

pub mod performance;
