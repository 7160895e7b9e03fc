//! Steps 4 to 12 of walk one for HTTP.
