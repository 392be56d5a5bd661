package batch

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// What is only kept comes back as the service shows it: some words in another
// casing, numbers that were texts as numbers, defaults filled in.

// keptNumbers are the whole numbers of parts that are kept.
var keptNumbers = map[string]bool{
	"diskSizeGB": true, "lun": true, "backendPort": true, "frontendPortRangeStart": true, "frontendPortRangeEnd": true, "priority": true,
	"maxBatchInstancePercent": true, "maxUnhealthyInstancePercent": true, "maxUnhealthyUpgradedInstancePercent": true,
}

// keptLower are the members that are shown in lower case.
var keptLower = map[string]bool{"storageAccountType": true, "securityType": true}

// maxKeptDepth bounds the objects and lists in each other that are looked at;
// bodies have no more.
const maxKeptDepth = 64

// tidyKept brings a part to the form in which it is shown, with defaults for
// what it does not say. What is no object stays as it is.
func tidyKept(part Opaque, defaults map[string]any, words map[string][]string) Opaque {
	d := json.NewDecoder(bytes.NewReader(part))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil || object == nil {
		return part
	}
	tidyMembers(object, words, 0)
	for name, value := range defaults {
		if object[name] == nil {
			object[name] = value
		}
	}
	text, err := json.Marshal(object)
	if err != nil {
		return part
	}
	return text
}

func tidyMembers(object map[string]any, words map[string][]string, depth int) {
	for name, value := range object {
		if text, ok := value.(string); ok {
			object[name] = tidyText(name, text, words)
			continue
		}
		tidyBelow(value, words, depth+1)
	}
}

func tidyBelow(value any, words map[string][]string, depth int) {
	if depth > maxKeptDepth {
		return
	}
	switch v := value.(type) {
	case map[string]any:
		tidyMembers(v, words, depth)
	case []any:
		for _, item := range v {
			tidyBelow(item, words, depth+1)
		}
	}
}

func tidyText(name, text string, words map[string][]string) any {
	if keptNumbers[name] {
		if _, err := strconv.ParseInt(text, 10, 64); err == nil && !strings.HasPrefix(text, "+") {
			return json.Number(text)
		}
	}
	if keptLower[name] {
		return strings.ToLower(text)
	}
	for _, word := range words[name] {
		if strings.EqualFold(text, word) {
			return word
		}
	}
	return text
}

// tidyKept brings all kept parts of a pool to the form in which they are shown.
func (s *PoolSpecification) tidyKept() {
	s.TargetNodeCommunicationMode = strings.ToLower(s.TargetNodeCommunicationMode)
	s.NetworkConfiguration = tidyKept(s.NetworkConfiguration, map[string]any{"dynamicVNetAssignmentScope": "none"}, nil)
	s.UpgradePolicy = tidyKept(s.UpgradePolicy, nil, nil)
	vm := s.VirtualMachineConfiguration
	if vm == nil {
		return
	}
	vm.OSDisk = tidyKept(vm.OSDisk, map[string]any{"ephemeralOSDiskSettings": map[string]any{}},
		map[string][]string{"caching": {"None", "ReadOnly", "ReadWrite"}})
	vm.NodePlacementConfiguration = tidyKept(vm.NodePlacementConfiguration, nil, map[string][]string{"policy": {"Regional", "Zonal"}})
	vm.SecurityProfile = tidyKept(vm.SecurityProfile, nil, nil)
	for i := range vm.DataDisks {
		vm.DataDisks[i] = tidyKept(vm.DataDisks[i], diskDefaults(vm.DataDisks[i]), nil)
	}
}

// diskDefaults are those of a data disk. Newer ones name their account type in a
// part of its own.
func diskDefaults(disk Opaque) map[string]any {
	defaults := map[string]any{"caching": "none"}
	if !bytes.Contains(disk, []byte(`"managedDisk"`)) {
		defaults["storageAccountType"] = "standard_lrs"
	}
	return defaults
}
