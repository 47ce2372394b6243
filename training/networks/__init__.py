"""The networks: what goes in, backbones, heads, and the physics quantities kept beside them."""
