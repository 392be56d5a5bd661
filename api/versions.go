package api

import (
	"bytes"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/batch"
)

// published are the api-versions that are served, oldest first. Versions are
// compared by their text, which begins with the date.
var published = []string{
	"2015-06-01.2.0", "2015-11-01.2.1", "2015-12-01.2.2",
	"2016-02-01.3.0", "2016-07-01.3.1",
	"2017-01-01.4.0", "2017-05-01.5.0", "2017-06-01.5.1", "2017-09-01.6.0",
	"2018-03-01.6.1", "2018-08-01.7.0", "2018-12-01.8.0",
	"2019-06-01.9.0", "2019-08-01.10.0",
	"2020-03-01.11.0", "2020-09-01.12.0",
	"2021-06-01.14.0",
	"2022-01-01.15.0", "2022-10-01.16.0",
	"2023-05-01.17.0", "2023-11-01.18.0",
	"2024-02-01.19.0", "2024-07-01.20.0",
	"2025-06-01",
}

// Versions are the api-versions that are served, oldest first.
func Versions() []string { return slices.Clone(published) }

// otherProtocol are published versions that are another protocol, with work
// items and virtual machines in place of jobs and nodes.
var otherProtocol = []string{"2014-10-01.1.0", "2015-03-01.1.1"}

// queryActions is the first version that writes an action as a path segment;
// before it, the action is a bare word of the query: POST pools/p?resize.
const queryActions = "2015-12-01"

// kind names an object of the protocol that differs between versions. An
// update of an object has the kind of the object itself.
type kind string

const (
	kindPool           kind = "pool"
	kindMachine        kind = "virtualMachineConfiguration"
	kindCloudService   kind = "cloudServiceConfiguration"
	kindStartTask      kind = "startTask"
	kindResourceFile   kind = "resourceFile"
	kindNode           kind = "node"
	kindRecentTask     kind = "recentTask"
	kindJob            kind = "job"
	kindTask           kind = "task"
	kindExitConditions kind = "exitConditions"
	kindExecution      kind = "executionInfo"
	kindTaskCounts     kind = "taskCounts"
	kindPoolNodeCounts kind = "poolNodeCounts"
	kindNodeCounts     kind = "nodeCounts"
	kindOther          kind = "" // the same in all versions

	// What follows stands in others only.
	kindUserAccount       kind = "userAccount"
	kindTaskNode          kind = "nodeInfo"
	kindFile              kind = "file"
	kindFileProperties    kind = "fileProperties"
	kindNetwork           kind = "networkConfiguration"
	kindPoolEndpoints     kind = "endpointConfiguration"
	kindNATPool           kind = "inboundNATPool"
	kindNATRule           kind = "networkSecurityGroupRule"
	kindPublicIP          kind = "publicIPAddressConfiguration"
	kindMount             kind = "mountConfiguration"
	kindBlobMount         kind = "azureBlobFileSystemConfiguration"
	kindScheduling        kind = "taskSchedulingPolicy"
	kindImage             kind = "imageReference"
	kindOSDisk            kind = "osDisk"
	kindManagedDisk       kind = "managedDisk"
	kindDataDisk          kind = "dataDisk"
	kindDiskEncryption    kind = "diskEncryptionConfiguration"
	kindSecurity          kind = "securityProfile"
	kindVMExtension       kind = "extension"
	kindContainers        kind = "containerConfiguration"
	kindContainerSettings kind = "containerSettings"
	kindRegistry          kind = "registry"
	kindJobNetwork        kind = "jobNetworkConfiguration"
	kindOutputFile        kind = "outputFile"
	kindDestination       kind = "destination"
	kindOutputContainer   kind = "outputContainer"
	kindExitCode          kind = "exitCode"
	kindExitOptions       kind = "exitOptions"
)

// parts says in which members of an object others of these kinds stand, alone
// or in an array. A kind that is not named here is looked at only where it is the
// body or the answer itself.
var parts = map[kind]map[string]kind{
	kindPool: {
		"startTask": kindStartTask, "virtualMachineConfiguration": kindMachine, "cloudServiceConfiguration": kindCloudService,
		"userAccounts": kindUserAccount, "networkConfiguration": kindNetwork, "mountConfiguration": kindMount, "taskSchedulingPolicy": kindScheduling,
	},
	kindFile:          {"properties": kindFileProperties},
	kindNetwork:       {"endpointConfiguration": kindPoolEndpoints, "publicIPAddressConfiguration": kindPublicIP},
	kindPoolEndpoints: {"inboundNATPools": kindNATPool},
	kindNATPool:       {"networkSecurityGroupRules": kindNATRule},
	kindMount:         {"azureBlobFileSystemConfiguration": kindBlobMount},
	kindMachine: {
		"imageReference": kindImage, "osDisk": kindOSDisk, "dataDisks": kindDataDisk, "diskEncryptionConfiguration": kindDiskEncryption,
		"securityProfile": kindSecurity, "extensions": kindVMExtension, "containerConfiguration": kindContainers,
	},
	kindOSDisk:            {"managedDisk": kindManagedDisk},
	kindContainers:        {"containerRegistries": kindRegistry},
	kindContainerSettings: {"registry": kindRegistry},
	kindStartTask:         {"resourceFiles": kindResourceFile, "containerSettings": kindContainerSettings},
	kindNode:              {"startTask": kindStartTask, "startTaskInfo": kindExecution, "recentTasks": kindRecentTask},
	kindRecentTask:        {"executionInfo": kindExecution},
	kindTask: {
		"resourceFiles": kindResourceFile, "executionInfo": kindExecution, "exitConditions": kindExitConditions,
		"containerSettings": kindContainerSettings, "outputFiles": kindOutputFile, "nodeInfo": kindTaskNode,
	},
	kindOutputFile:  {"destination": kindDestination},
	kindDestination: {"container": kindOutputContainer},
	kindExitConditions: {
		"exitCodes": kindExitCode, "exitCodeRanges": kindExitCode, "default": kindExitOptions, "schedulingError": kindExitOptions,
		"preProcessingError": kindExitOptions, "fileUploadError": kindExitOptions,
	},
	kindExitCode:       {"exitOptions": kindExitOptions},
	kindJob:            {"networkConfiguration": kindJobNetwork},
	kindPoolNodeCounts: {"dedicated": kindNodeCounts, "lowPriority": kindNodeCounts},
}

// differences is where the versions part, in the names of the newest one. Those of
// one kind are applied in their order, down as well as up: where two of them touch
// the same member, that order says which comes first. What a published version had
// does not change any more, so that rows are added here and hardly ever changed.
var differences = []difference{
	renamed(kindPool, "taskSlotsPerNode", "maxTasksPerNode", "2020-09-01"),
	renamed(kindPool, "targetDedicatedNodes", "targetDedicated", "2017-05-01"),
	renamed(kindPool, "currentDedicatedNodes", "currentDedicated", "2017-05-01"),
	added(kindPool, "2017-05-01", "targetLowPriorityNodes", "currentLowPriorityNodes", "applicationLicenses"),
	added(kindPool, "2017-01-01", "userAccounts"),
	added(kindPool, "2016-02-01", "virtualMachineConfiguration"),
	added(kindPool, "2019-08-01", "mountConfiguration"),
	added(kindPool, "2021-06-01", "identity"),
	added(kindPool, "2022-10-01", "targetNodeCommunicationMode", "currentNodeCommunicationMode"),
	added(kindPool, "2023-11-01", "resourceTags"),
	added(kindPool, "2024-02-01", "upgradePolicy"),
	added(kindPool, "2016-07-01", "networkConfiguration"),
	removed(kindPool, "2025-06-01", "cloudServiceConfiguration", "certificateReferences", "applicationLicenses",
		"targetNodeCommunicationMode", "currentNodeCommunicationMode", "resourceTags"),
	reshaped(kindPool, "2017-05-01", singleResizeError, nil, "resizeError"),
	reshaped(kindPool, "2016-02-01", spreadCloudService, gatherCloudService, cloudServiceMembers...),

	added(kindUserAccount, "2017-05-01", "linuxUserConfiguration"),
	added(kindUserAccount, "2018-12-01", "windowsUserConfiguration"),
	added(kindScheduling, "2025-06-01", "jobDefaultOrder"),
	added(kindNetwork, "2017-06-01", "endpointConfiguration"),
	added(kindNetwork, "2018-12-01", "dynamicVNetAssignmentScope"),
	added(kindNetwork, "2020-03-01", "publicIPAddressConfiguration"),
	added(kindNetwork, "2023-05-01", "enableAcceleratedNetworking"),
	added(kindNATRule, "2019-06-01", "sourcePortRanges"),
	added(kindPublicIP, "2025-06-01", "ipFamilies", "ipTags"),
	added(kindBlobMount, "2021-06-01", "identityReference"),

	added(kindMachine, "2017-09-01", "containerConfiguration", "dataDisks", "licenseType"),
	added(kindMachine, "2020-03-01", "diskEncryptionConfiguration"),
	added(kindMachine, "2021-06-01", "extensions", "nodePlacementConfiguration"),
	added(kindMachine, "2017-01-01", "osDisk"),
	added(kindMachine, "2021-06-01", "osDisk").from("2018-12-01"), // when it was but the address of an image
	added(kindMachine, "2023-11-01", "securityProfile", "serviceArtifactReference"),
	added(kindImage, "2017-09-01", "virtualMachineImageId"),
	added(kindImage, "2024-07-01", "communityGalleryImageId", "sharedGalleryImageId"),
	added(kindOSDisk, "2021-06-01", "ephemeralOSDiskSettings"),
	added(kindOSDisk, "2023-11-01", "diskSizeGB", "managedDisk", "writeAcceleratorEnabled"),
	added(kindManagedDisk, "2025-06-01", "diskEncryptionSet", "securityProfile"),
	added(kindDataDisk, "2025-06-01", "managedDisk"),
	removed(kindDataDisk, "2025-06-01", "storageAccountType"),
	added(kindDiskEncryption, "2025-06-01", "customerManagedKey"),
	added(kindSecurity, "2025-06-01", "proxyAgentSettings"),
	added(kindVMExtension, "2023-05-01", "enableAutomaticUpgrade"),
	unseen(kindRegistry, "2021-06-01", "identityReference"),
	reshaped(kindCloudService, "2018-12-01", oldOSVersion, newOSVersion),
	unseen(kindCloudService, "2018-12-01", "osVersion"),
	removed(kindCloudService, "2018-12-01", "targetOSVersion", "currentOSVersion"),
	unseen(kindPool, "2016-02-01", "cloudServiceConfiguration"),

	added(kindContainerSettings, "2019-06-01", "workingDirectory"),
	unseen(kindContainerSettings, "2024-07-01", "containerHostBatchBindMounts"),
	added(kindStartTask, "2017-09-01", "containerSettings"),
	unseen(kindStartTask, "2017-01-01", "userIdentity"),
	reshaped(kindStartTask, "2017-01-01", toRunElevated, fromRunElevated, "runElevated"),
	reshaped(kindStartTask, "2019-08-01", nil, func(o *object) { o.setDefault("waitForSuccess", "false") }),

	renamed(kindResourceFile, "httpUrl", "blobSource", "2018-12-01"),
	added(kindResourceFile, "2018-12-01", "storageContainerUrl", "autoStorageContainerName", "blobPrefix"),
	unseen(kindResourceFile, "2021-06-01", "identityReference"),

	hidden(kindNode, "2025-06-01", "ipv6Address"),
	hidden(kindNode, "2021-06-01", "virtualMachineInfo"),
	hidden(kindNode, "2020-09-01", "runningTaskSlotsCount"),
	hidden(kindNode, "2018-08-01", "nodeAgentInfo"),
	hidden(kindNode, "2017-09-01", "endpointConfiguration"),
	hidden(kindNode, "2017-05-01", "isDedicated"),

	added(kindJob, "2022-01-01", "allowTaskPreemption"),
	added(kindJob, "2021-06-01", "maxParallelTasks"),
	added(kindJob, "2018-12-01", "networkConfiguration"),
	unseen(kindJobNetwork, "2024-07-01", "skipWithdrawFromVNet"),
	added(kindJob, "2016-07-01", "onAllTasksComplete", "onTaskFailure"),
	added(kindJob, "2015-12-01", "usesTaskDependencies"),

	added(kindTask, "2020-09-01", "requiredSlots"),
	added(kindTask, "2017-05-01", "outputFiles"),
	added(kindTask, "2016-07-01", "exitConditions", "applicationPackageReferences"),
	added(kindTask, "2017-09-01", "containerSettings"),
	added(kindTask, "2017-01-01", "authenticationTokenSettings"),
	unseen(kindOutputContainer, "2021-06-01", "identityReference"),
	unseen(kindOutputContainer, "2022-01-01", "uploadHeaders"),
	unseen(kindTask, "2017-01-01", "userIdentity"),
	reshaped(kindTask, "2017-01-01", toRunElevated, fromRunElevated, "runElevated"),
	reshaped(kindTask, "2018-12-01", nil, keepFilesForEver),
	renamed(kindExitConditions, "preProcessingError", "schedulingError", "2017-05-01"),
	added(kindExitConditions, "2017-05-01", "fileUploadError"),
	added(kindExitOptions, "2017-01-01", "dependencyAction"),

	reshaped(kindExecution, "2017-05-01", toSchedulingError, nil, "schedulingError"),
	hidden(kindExecution, "2017-05-01", "result"),
	reshaped(kindExecution, "2018-08-01", capitalResult, nil),

	reshaped(kindTask, "2019-08-01", hasUser(`{"autoUser":{"elevationLevel":"nonadmin"}}`), nil).from("2017-05-01"),
	reshaped(kindTask, "2017-05-01", hasUser(`{"autoUser":{"elevationLevel":"nonadmin","scope":"task"}}`), nil).from("2017-01-01"),
	reshaped(kindStartTask, "2019-08-01", hasUser(`{"autoUser":{"elevationLevel":"nonadmin"}}`), nil).from("2018-03-01"),
	reshaped(kindPool, "2015-12-01", func(o *object) {
		if string(o.get("resizeTimeout")) != `"PT15M"` {
			o.take("resizeTimeout")
		}
	}, nil).from("2015-11-01"),
	hidden(kindTaskNode, "2015-11-01", "taskRootDirectory", "taskRootDirectoryUrl"),
	reshaped(kindNode, "2018-12-01", fewerCounts, nil),
	hidden(kindFileProperties, "2017-05-01", "fileMode"),
	reshaped(kindNetwork, "2019-08-01", without("dynamicVNetAssignmentScope", `"none"`), nil),
	reshaped(kindOSDisk, "2023-11-01", without("ephemeralOSDiskSettings", `{}`), nil),

	reshaped(kindTaskCounts, "2020-09-01", flatCounts, nil),
	reshaped(kindTaskCounts, "2018-08-01", func(o *object) { o.set("validationStatus", jsontext.Value(`"Validated"`)) }, nil),
	hidden(kindNodeCounts, "2023-11-01", "upgradingOS"),
	hidden(kindNodeCounts, "2024-07-01", "deallocated", "deallocating"),
}

// capitalResult: the words began with a capital.
func capitalResult(o *object) {
	switch string(o.get("result")) {
	case `"` + string(batch.ResultSuccess) + `"`:
		o.set("result", jsontext.Value(`"Success"`))
	case `"` + string(batch.ResultFailure) + `"`:
		o.set("result", jsontext.Value(`"Failure"`))
	}
}

// hasUser shows whom a task runs as that was not told so.
func hasUser(text string) func(*object) {
	return func(o *object) { o.setDefault("userIdentity", text) }
}

// fewerCounts: nodes that had not booted had counted nothing.
func fewerCounts(o *object) {
	if o.get("lastBootTime") == nil {
		o.take("runningTasksCount")
		o.take("totalTasksSucceeded")
	}
}

// without hides a default that was not shown.
func without(name, text string) func(*object) {
	return func(o *object) {
		if string(o.get(name)) == text {
			o.take(name)
		}
	}
}

// singleResizeError shows the first of the errors, all that there was.
func singleResizeError(o *object) {
	if errs, ok, err := parseArray(o.take("resizeErrors")); err == nil && ok && len(errs) > 0 {
		o.set("resizeError", errs[0])
	}
}

// cloudServiceMembers are those that stood in the pool itself at first.
var cloudServiceMembers = []string{"osFamily", "targetOSVersion", "currentOSVersion"}

func spreadCloudService(o *object) {
	if service, ok, err := parseObject(o.take("cloudServiceConfiguration")); err == nil && ok {
		for _, name := range cloudServiceMembers {
			o.set(name, service.get(name))
		}
	}
}

func gatherCloudService(o *object) {
	service := &object{}
	for _, name := range cloudServiceMembers {
		service.set(name, o.take(name))
	}
	if len(service.members) > 0 {
		o.set("cloudServiceConfiguration", service.text())
	}
}

// oldOSVersion: upgrades of the system in place had a target and a present.
func oldOSVersion(o *object) {
	v := o.take("osVersion")
	o.set("targetOSVersion", v)
	o.set("currentOSVersion", v)
}

func newOSVersion(o *object) { o.set("osVersion", o.take("targetOSVersion")) }

func toRunElevated(o *object) {
	identity := o.take("userIdentity")
	elevated := `false`
	if user, ok, err := parseObject(identity); err == nil && ok {
		if auto, ok, err := parseObject(user.get("autoUser")); err == nil && ok &&
			bytes.Equal(auto.get("elevationLevel"), []byte(`"admin"`)) {
			elevated = `true`
		}
	}
	o.set("runElevated", jsontext.Value(elevated))
}

// fromRunElevated leaves anything but a boolean for the decoder to refuse.
func fromRunElevated(o *object) {
	switch v := o.get("runElevated"); {
	case bytes.Equal(v, []byte(`true`)):
		o.set("userIdentity", jsontext.Value(`{"autoUser":{"elevationLevel":"admin"}}`))
		o.take("runElevated")
	case bytes.Equal(v, []byte(`false`)), bytes.Equal(v, []byte(`null`)):
		o.take("runElevated")
	}
}

// keepFilesForEver: tasks of old clients expect their files to stay.
func keepFilesForEver(o *object) {
	constraints := &object{}
	if given := o.get("constraints"); given != nil && !bytes.Equal(given, []byte(`null`)) {
		parsed, ok, err := parseObject(given)
		if err != nil || !ok {
			return // the decoder says what is wrong with it
		}
		constraints = parsed
	}
	constraints.setDefault("retentionTime", `"`+batch.Unlimited.String()+`"`)
	o.set("constraints", constraints.text())
}

// toSchedulingError: a command that ran and failed was no scheduling error.
func toSchedulingError(o *object) {
	failure := o.take("failureInfo")
	info, ok, err := parseObject(failure)
	if err != nil || !ok || bytes.Equal(info.get("code"), []byte(`"`+batch.FailureExitCode+`"`)) {
		return
	}
	o.set("schedulingError", failure)
}

// flatCounts: there were no slots to count.
func flatCounts(o *object) {
	o.take("taskSlotCounts")
	if counts, ok, err := parseObject(o.take("taskCounts")); err == nil && ok {
		o.members = append(o.members, counts.members...)
	}
}
