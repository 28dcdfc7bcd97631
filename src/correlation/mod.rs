//! Which reply belongs to which request.
