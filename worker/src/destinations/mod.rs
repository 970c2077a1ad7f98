//! The list of destinations.
