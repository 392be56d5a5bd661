package isolation

import (
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
)

// form is how groups pass from one keeper process to the next.
type form struct {
	Mode          string   `json:"mode"`
	Unified       string   `json:"unified,omitempty"`
	Memory        string   `json:"memory,omitempty"`
	Pids          string   `json:"pids,omitempty"`
	CPU           string   `json:"cpu,omitempty"`
	Freezer       string   `json:"freezer,omitempty"`
	UnifiedLimits []string `json:"unifiedLimits,omitempty"`
	UnifiedCPU    bool     `json:"unifiedCPU,omitempty"`
	Mark          uint64   `json:"mark"`
	Missing       []string `json:"missing,omitempty"`
}

// MarshalText writes the groups as ParseGroups reads them.
func (g *Groups) MarshalText() ([]byte, error) {
	var limits []string
	for _, name := range slices.Sorted(maps.Keys(g.unifiedLimits)) {
		if g.unifiedLimits[name] {
			limits = append(limits, name)
		}
	}
	text, err := json.Marshal(form{
		g.Mode, g.unified, g.memory, g.pids, g.cpu, g.freezer, limits, g.unifiedCPU, g.mark, g.Missing,
	})
	if err != nil {
		return nil, fmt.Errorf("write groups: %w", err)
	}
	return text, nil
}

// ParseGroups reads what MarshalText has written.
func ParseGroups(text []byte) (*Groups, error) {
	var f form
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	limits := map[string]bool{}
	for _, name := range f.UnifiedLimits {
		limits[name] = true
	}
	return &Groups{
		Mode: f.Mode, unified: f.Unified, memory: f.Memory, pids: f.Pids, cpu: f.CPU, freezer: f.Freezer,
		unifiedLimits: limits, unifiedCPU: f.UnifiedCPU, mark: f.Mark, Missing: f.Missing,
	}, nil
}
