package upkeep

// retention removes the files of tasks that completed long enough ago. Nobody
// announces them: a minute more or less does not matter here.
func (u *Upkeep) retention() duty {
	return duty{name: "retention", do: u.control.RemoveExpiredFiles}
}
