//! The long-running roles of celeriac: worker and pools
