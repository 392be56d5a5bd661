package upkeep

// liveness gives up nodes that are silent for longer than their lease.
func (u *Upkeep) liveness() duty {
	return duty{name: "liveness", do: u.nodes.LoseNodes}
}
