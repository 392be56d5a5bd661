package api_test

import (
	"strings"
	"testing"
)

// since says in which versions published clients have a property in the requests
// that add a resource: from one on, and up to another.
var since = map[string]map[string][2]string{
	"pools": {
		"virtualMachineConfiguration":                       {"2016-02-01.3.0", ""},
		"applicationLicenses":                               {"2017-05-01.5.0", "2025-06-01"},
		"certificateReferences":                             {"", "2025-06-01"},
		"cloudServiceConfiguration.targetOSVersion":         {"2016-02-01.3.0", "2018-12-01.8.0"},
		"cloudServiceConfiguration.osVersion":               {"2018-12-01.8.0", "2025-06-01"},
		"maxTasksPerNode":                                   {"", "2020-09-01.12.0"},
		"taskSlotsPerNode":                                  {"2020-09-01.12.0", ""},
		"mountConfiguration":                                {"2019-08-01.10.0", ""},
		"networkConfiguration":                              {"2016-07-01.3.1", ""},
		"networkConfiguration.dynamicVNetAssignmentScope":   {"2018-12-01.8.0", ""},
		"networkConfiguration.enableAcceleratedNetworking":  {"2023-05-01.17.0", ""},
		"networkConfiguration.endpointConfiguration":        {"2017-06-01.5.1", ""},
		"networkConfiguration.publicIPAddressConfiguration": {"2020-03-01.11.0", ""},
		"networkConfiguration.endpointConfiguration.inboundNATPools[].networkSecurityGroupRules[].sourcePortRanges": {"2019-06-01.9.0", ""},
		"resourceTags":                                                       {"2023-11-01.18.0", "2025-06-01"},
		"startTask.containerSettings":                                        {"2017-09-01.6.0", ""},
		"startTask.containerSettings.workingDirectory":                       {"2019-06-01.9.0", ""},
		"startTask.resourceFiles[].blobSource":                               {"", "2018-12-01.8.0"},
		"startTask.resourceFiles[].httpUrl":                                  {"2018-12-01.8.0", ""},
		"startTask.resourceFiles[].storageContainerUrl":                      {"2018-12-01.8.0", ""},
		"startTask.resourceFiles[].identityReference":                        {"2021-06-01.14.0", ""},
		"startTask.runElevated":                                              {"", "2017-01-01.4.0"},
		"startTask.userIdentity":                                             {"2017-01-01.4.0", ""},
		"targetDedicated":                                                    {"", "2017-05-01.5.0"},
		"targetDedicatedNodes":                                               {"2017-05-01.5.0", ""},
		"targetLowPriorityNodes":                                             {"2017-05-01.5.0", ""},
		"targetNodeCommunicationMode":                                        {"2022-10-01.16.0", "2025-06-01"},
		"upgradePolicy":                                                      {"2024-02-01.19.0", ""},
		"userAccounts":                                                       {"2017-01-01.4.0", ""},
		"userAccounts[].linuxUserConfiguration":                              {"2017-05-01.5.0", ""},
		"userAccounts[].windowsUserConfiguration":                            {"2018-12-01.8.0", ""},
		"virtualMachineConfiguration.containerConfiguration":                 {"2017-09-01.6.0", ""},
		"virtualMachineConfiguration.dataDisks":                              {"2017-09-01.6.0", ""},
		"virtualMachineConfiguration.diskEncryptionConfiguration":            {"2020-03-01.11.0", ""},
		"virtualMachineConfiguration.nodePlacementConfiguration":             {"2021-06-01.14.0", ""},
		"virtualMachineConfiguration.imageReference.virtualMachineImageId":   {"2017-09-01.6.0", ""},
		"virtualMachineConfiguration.imageReference.communityGalleryImageId": {"2024-07-01.20.0", ""},
		"virtualMachineConfiguration.osDisk.ephemeralOSDiskSettings":         {"2021-06-01.14.0", ""},
		"virtualMachineConfiguration.osDisk.diskSizeGB":                      {"2023-11-01.18.0", ""},
		"virtualMachineConfiguration.osDisk.managedDisk.securityProfile":     {"2025-06-01", ""},
		"virtualMachineConfiguration.securityProfile":                        {"2023-11-01.18.0", ""},
		"virtualMachineConfiguration.serviceArtifactReference":               {"2023-11-01.18.0", ""},
	},
	"jobs": {
		"allowTaskPreemption":                       {"2022-01-01.15.0", ""},
		"maxParallelTasks":                          {"2021-06-01.14.0", ""},
		"networkConfiguration":                      {"2018-12-01.8.0", ""},
		"networkConfiguration.skipWithdrawFromVNet": {"2024-07-01.20.0", ""},
		"onAllTasksComplete":                        {"2016-07-01.3.1", ""},
		"onTaskFailure":                             {"2016-07-01.3.1", ""},
		"usesTaskDependencies":                      {"2015-12-01.2.2", ""},
	},
	"jobs/j/tasks": {
		"applicationPackageReferences":                            {"2016-07-01.3.1", ""},
		"authenticationTokenSettings":                             {"2017-01-01.4.0", ""},
		"containerSettings":                                       {"2017-09-01.6.0", ""},
		"containerSettings.workingDirectory":                      {"2019-06-01.9.0", ""},
		"containerSettings.registry.identityReference":            {"2021-06-01.14.0", ""},
		"containerSettings.containerHostBatchBindMounts":          {"2024-07-01.20.0", ""},
		"exitConditions":                                          {"2016-07-01.3.1", ""},
		"exitConditions.default.dependencyAction":                 {"2017-01-01.4.0", ""},
		"exitConditions.exitCodes[].exitOptions.dependencyAction": {"2017-01-01.4.0", ""},
		"exitConditions.fileUploadError":                          {"2017-05-01.5.0", ""},
		"exitConditions.preProcessingError":                       {"2017-05-01.5.0", ""},
		"exitConditions.schedulingError":                          {"2016-07-01.3.1", "2017-05-01.5.0"},
		"outputFiles":                                             {"2017-05-01.5.0", ""},
		"outputFiles[].destination.container.identityReference":   {"2021-06-01.14.0", ""},
		"outputFiles[].destination.container.uploadHeaders":       {"2022-01-01.15.0", ""},
		"requiredSlots":                                           {"2020-09-01.12.0", ""},
		"resourceFiles[].blobSource":                              {"", "2018-12-01.8.0"},
		"resourceFiles[].httpUrl":                                 {"2018-12-01.8.0", ""},
		"resourceFiles[].blobPrefix":                              {"2018-12-01.8.0", ""},
		"runElevated":                                             {"", "2017-01-01.4.0"},
		"userIdentity":                                            {"2017-01-01.4.0", ""},
	},
}

// bodyWith is an object with nothing but a property, somewhere in it.
func bodyWith(path string) string {
	name, below, nested := strings.Cut(path, ".")
	list := strings.HasSuffix(name, "[]")
	value := `"` + "\uE000" + `"` // of no type that a property could want, but where texts are
	if nested {
		value = bodyWith(below)
	}
	if list {
		value = "[" + value + "]"
	}
	return `{"` + strings.TrimSuffix(name, "[]") + `":` + value + `}`
}

func TestWhatAVersionDidNotHaveIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.must(t, 201, "POST", "/pools", newest, linuxPool)
	e.must(t, 201, "POST", "/jobs", newest, plainJob)
	for at, properties := range since {
		for path, span := range properties {
			for _, version := range published {
				known := version >= span[0] && (span[1] == "" || version < span[1])
				a := e.must(t, 400, "POST", "/"+at, version, bodyWith(path))
				refused := a.code(t) == "InvalidRequestBody" && strings.Contains(a.detail(t, "Reason"), "is not known to this operation")
				where := strings.ReplaceAll(path, "[]", "[0]")
				if refused == known || refused && !strings.HasPrefix(where, a.detail(t, "PropertyName")) {
					t.Errorf("%s: %s of %s: %s", version, path, at, a.body)
				}
			}
		}
	}
	t.Run("however its name is written", func(t *testing.T) {
		a := e.must(t, 400, "POST", "/jobs/j/tasks", "2016-07-01.3.1", `{"id":"x","commandLine":"y","user\u0049dentity":{"username":"u"}}`)
		if got := a.detail(t, "PropertyName"); got != "userIdentity" {
			t.Errorf("refused %q: %s", got, a.body)
		}
	})
	t.Run("in collections", func(t *testing.T) {
		items := e.must(t, 200, "POST", "/jobs/j/addtaskcollection", "2022-10-01.16.0",
			`{"value":[{"id":"a","commandLine":"y","containerSettings":{"imageName":"i","containerHostBatchBindMounts":[]}},{"id":"b","commandLine":"y"}]}`).items(t)
		if got := strings.Join(statuses(items), ", "); got != "a clienterror InvalidRequestBody, b success -" && got != "a ClientError InvalidRequestBody, b Success -" {
			t.Error(got)
		}
	})
}
