package batch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PoolSpecification is what a client sends to add a pool.
type PoolSpecification struct {
	ID                           PoolID                       `json:"id"`
	DisplayName                  string                       `json:"displayName,omitempty"`
	VMSize                       string                       `json:"vmSize"`
	CloudServiceConfiguration    *CloudServiceConfiguration   `json:"cloudServiceConfiguration,omitempty"`
	VirtualMachineConfiguration  *VirtualMachineConfiguration `json:"virtualMachineConfiguration,omitempty"`
	ResizeTimeout                *Duration                    `json:"resizeTimeout,omitempty"`
	TargetDedicatedNodes         int                          `json:"targetDedicatedNodes"`
	TargetLowPriorityNodes       int                          `json:"targetLowPriorityNodes"`
	EnableAutoScale              bool                         `json:"enableAutoScale"`
	AutoScaleFormula             string                       `json:"autoScaleFormula,omitempty"`
	AutoScaleEvaluationInterval  *Duration                    `json:"autoScaleEvaluationInterval,omitempty"`
	EnableInterNodeCommunication bool                         `json:"enableInterNodeCommunication"`
	TaskSlotsPerNode             int                          `json:"taskSlotsPerNode"`
	TaskSchedulingPolicy         *TaskSchedulingPolicy        `json:"taskSchedulingPolicy,omitempty"`
	StartTask                    *StartTask                   `json:"startTask,omitempty"`
	UserAccounts                 []UserAccount                `json:"userAccounts,omitzero"`
	Metadata                     []MetadataItem               `json:"metadata,omitzero"`

	// Kept and given back; nothing on one's own machines answers to them.
	NetworkConfiguration        Opaque   `json:"networkConfiguration,omitempty"`
	ApplicationLicenses         []string `json:"applicationLicenses,omitzero"`
	TargetNodeCommunicationMode string   `json:"targetNodeCommunicationMode,omitempty"`
	UpgradePolicy               Opaque   `json:"upgradePolicy,omitempty"`
	ResourceTags                Opaque   `json:"resourceTags,omitempty"`
	Identity                    Opaque   `json:"identity,omitempty"`

	// Refused unless empty.
	ApplicationPackageReferences []Opaque `json:"applicationPackageReferences,omitzero"`
	CertificateReferences        []Opaque `json:"certificateReferences,omitzero"`
	MountConfiguration           []Opaque `json:"mountConfiguration,omitzero"`
}

// CloudServiceConfiguration is the older way to say what runs on a node. It is
// accepted, so that old clients work; the node is the same Linux process.
type CloudServiceConfiguration struct {
	OSFamily         string `json:"osFamily"`
	OSVersion        string `json:"osVersion,omitempty"`
	TargetOSVersion  string `json:"targetOSVersion,omitempty"`
	CurrentOSVersion string `json:"currentOSVersion,omitempty"`
}

// VirtualMachineConfiguration says what image a node has. The image is
// recorded and given back; tasks run on the machine's own system.
type VirtualMachineConfiguration struct {
	ImageReference              ImageReference `json:"imageReference"`
	NodeAgentSKUID              string         `json:"nodeAgentSKUId"`
	OSDisk                      Opaque         `json:"osDisk,omitempty"`
	WindowsConfiguration        Opaque         `json:"windowsConfiguration,omitempty"`
	DataDisks                   []Opaque       `json:"dataDisks,omitzero"`
	LicenseType                 string         `json:"licenseType,omitempty"`
	DiskEncryptionConfiguration Opaque         `json:"diskEncryptionConfiguration,omitempty"`
	NodePlacementConfiguration  Opaque         `json:"nodePlacementConfiguration,omitempty"`
	SecurityProfile             Opaque         `json:"securityProfile,omitempty"`
	ServiceArtifactReference    Opaque         `json:"serviceArtifactReference,omitempty"`

	// Refused unless empty.
	ContainerConfiguration Opaque   `json:"containerConfiguration,omitempty"`
	Extensions             []Opaque `json:"extensions,omitzero"`
}

// ImageReference names an image of the marketplace or one of the user's own.
type ImageReference struct {
	Publisher               string `json:"publisher,omitempty"`
	Offer                   string `json:"offer,omitempty"`
	SKU                     string `json:"sku,omitempty"`
	Version                 string `json:"version,omitempty"`
	VirtualMachineImageID   string `json:"virtualMachineImageId,omitempty"`
	ExactVersion            string `json:"exactVersion,omitempty"`
	SharedGalleryImageID    string `json:"sharedGalleryImageId,omitempty"`
	CommunityGalleryImageID string `json:"communityGalleryImageId,omitempty"`
}

// TaskSchedulingPolicy says how tasks are laid over the nodes of a pool.
type TaskSchedulingPolicy struct {
	NodeFillType NodeFillType `json:"nodeFillType"`
}

// NodeFillType is spread (the emptiest node first) or pack (the fullest).
type NodeFillType string

// Fill types, in the casing that the service shows.
const (
	FillSpread NodeFillType = "Spread"
	FillPack   NodeFillType = "Pack"
)

// StartTask runs on a node after each boot, before any task.
type StartTask struct {
	CommandLine         string               `json:"commandLine"`
	ResourceFiles       []ResourceFile       `json:"resourceFiles,omitzero"`
	EnvironmentSettings []EnvironmentSetting `json:"environmentSettings,omitzero"`
	UserIdentity        *UserIdentity        `json:"userIdentity,omitempty"`
	MaxTaskRetryCount   int                  `json:"maxTaskRetryCount"`
	// WaitForSuccess keeps tasks off the node until the start task succeeded;
	// true unless said otherwise (the default since 2019).
	WaitForSuccess    *bool  `json:"waitForSuccess,omitempty"`
	ContainerSettings Opaque `json:"containerSettings,omitempty"`
}

// PoolState is the life of the pool itself.
type PoolState string

// States of a pool.
const (
	PoolActive   PoolState = "active"
	PoolDeleting PoolState = "deleting"
)

// AllocationState tells whether the number of nodes is changing.
type AllocationState string

// Allocation states of a pool.
const (
	AllocationSteady   AllocationState = "steady"
	AllocationResizing AllocationState = "resizing"
	AllocationStopping AllocationState = "stopping"
)

// Pool is a pool as the service knows it.
type Pool struct {
	PoolSpecification
	Account                       AccountName
	Stamp                         Stamp
	CreationTime                  time.Time
	State                         PoolState
	StateTransitionTime           time.Time
	AllocationState               AllocationState
	AllocationStateTransitionTime time.Time
	ResizeErrors                  []ResizeError
	// ResizeDeadline is when the running resize gives up.
	ResizeDeadline time.Time
	// RunningTimeout is the time that the newest resize was given; that of the
	// specification is for the first one.
	RunningTimeout Duration
	// Deallocation says what becomes of tasks on nodes that the running resize
	// removes.
	Deallocation NodeDeallocationOption
	// Counts of nodes that exist now, leaving ones included.
	CurrentDedicatedNodes   int
	CurrentLowPriorityNodes int
}

// ResizeError says why a pool did not reach its target.
type ResizeError struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Values  []NameValue `json:"values,omitempty"`
}

// Codes of resize errors.
const (
	ResizeStopped          = "ResizeStopped"
	ResizeAllocationFailed = "AllocationFailed"
	ResizeTimedOut         = "AllocationTimedout"
)

// NodeDeallocationOption says what becomes of the tasks of a node that goes.
type NodeDeallocationOption string

// Deallocation options: stop tasks and queue them again, end them, wait for
// them, or wait for them and for the retention of their files.
const (
	DeallocateRequeue        NodeDeallocationOption = "requeue"
	DeallocateTerminate      NodeDeallocationOption = "terminate"
	DeallocateTaskCompletion NodeDeallocationOption = "taskcompletion"
	DeallocateRetainedData   NodeDeallocationOption = "retaineddata"
)

// PoolResize is the body of the resize operation.
type PoolResize struct {
	TargetDedicatedNodes   *int                   `json:"targetDedicatedNodes,omitempty"`
	TargetLowPriorityNodes *int                   `json:"targetLowPriorityNodes,omitempty"`
	ResizeTimeout          *Duration              `json:"resizeTimeout,omitempty"`
	NodeDeallocationOption NodeDeallocationOption `json:"nodeDeallocationOption,omitempty"`
}

// NodeRemoval is the body of the remove nodes operation.
type NodeRemoval struct {
	NodeList               []NodeID               `json:"nodeList"`
	ResizeTimeout          *Duration              `json:"resizeTimeout,omitempty"`
	NodeDeallocationOption NodeDeallocationOption `json:"nodeDeallocationOption,omitempty"`
}

// PoolPatch changes what is present. A replacement (updateproperties) is a
// patch in which StartTask and Metadata are always taken, see [Pool.Replace].
type PoolPatch struct {
	DisplayName                  *string                      `json:"displayName,omitempty"`
	VMSize                       string                       `json:"vmSize,omitempty"`
	EnableInterNodeCommunication *bool                        `json:"enableInterNodeCommunication,omitempty"`
	StartTask                    *StartTask                   `json:"startTask,omitempty"`
	Metadata                     *[]MetadataItem              `json:"metadata,omitempty"`
	VirtualMachineConfiguration  *VirtualMachineConfiguration `json:"virtualMachineConfiguration,omitempty"`
	TaskSlotsPerNode             *int                         `json:"taskSlotsPerNode,omitempty"`
	TaskSchedulingPolicy         *TaskSchedulingPolicy        `json:"taskSchedulingPolicy,omitempty"`
	NetworkConfiguration         Opaque                       `json:"networkConfiguration,omitempty"`
	UserAccounts                 []UserAccount                `json:"userAccounts,omitempty"`
	TargetNodeCommunicationMode  string                       `json:"targetNodeCommunicationMode,omitempty"`
	UpgradePolicy                Opaque                       `json:"upgradePolicy,omitempty"`
	ResourceTags                 Opaque                       `json:"resourceTags,omitempty"`
	ApplicationPackageReferences []Opaque                     `json:"applicationPackageReferences,omitempty"`
	CertificateReferences        []Opaque                     `json:"certificateReferences,omitempty"`
	MountConfiguration           []Opaque                     `json:"mountConfiguration,omitempty"`
}

// Bounds of the service (semantics: identities and limits).
const (
	defaultResizeTimeout = 15 * Minute
	minResizeTimeout     = 5 * Minute
	maxResizeTimeout     = 168 * Hour
	maxTaskSlots         = 256
	// MaxNodesPerPool bounds a target; a pool of the service has at most 1000
	// nodes by default, ours may be asked for ten times that.
	MaxNodesPerPool = 10_000
)

// Normalize fills defaults, brings words to the service's casing, and refuses
// what is not legal or not supported.
func (s *PoolSpecification) Normalize() error {
	if reason := checkID(string(s.ID)); reason != "" {
		return InvalidValue("id", s.ID, "%s", reason)
	}
	if err := checkDisplayName(s.DisplayName); err != nil {
		return err
	}
	if s.VMSize == "" {
		return Missing("vmSize")
	}
	size, err := SizeOf(s.VMSize)
	if err != nil {
		return err
	}
	if err := s.normalizeImage(); err != nil {
		return err
	}
	if err := s.refuseUnsupported(); err != nil {
		return err
	}
	s.VMSize = strings.ToLower(s.VMSize) // as the service shows it
	if s.TaskSlotsPerNode == 0 {
		s.TaskSlotsPerNode = 1
	}
	if limit := min(4*size.Cores, maxTaskSlots); s.TaskSlotsPerNode < 1 || s.TaskSlotsPerNode > limit {
		return InvalidValue("taskSlotsPerNode", s.TaskSlotsPerNode, "It is 1 to %d for %s, four times its cores and at most %d", limit, s.VMSize, maxTaskSlots)
	}
	for property, target := range map[string]int{"targetDedicatedNodes": s.TargetDedicatedNodes, "targetLowPriorityNodes": s.TargetLowPriorityNodes} {
		if err := checkTarget(property, target); err != nil {
			return err
		}
	}
	if s.ResizeTimeout, err = normalizeResizeTimeout(s.ResizeTimeout); err != nil {
		return err
	}
	return s.normalizeChangeable()
}

// normalizeChangeable covers what a patch may change too.
func (s *PoolSpecification) normalizeChangeable() error {
	s.tidyKept()
	if s.TaskSchedulingPolicy == nil {
		s.TaskSchedulingPolicy = &TaskSchedulingPolicy{}
	}
	if err := word("taskSchedulingPolicy.nodeFillType", &s.TaskSchedulingPolicy.NodeFillType, FillSpread, FillPack); err != nil {
		return err
	}
	if err := normalizeUserAccounts(s.UserAccounts); err != nil {
		return err
	}
	s.fillLoginModes()
	if err := s.StartTask.normalize(); err != nil {
		return err
	}
	if s.StartTask != nil {
		if err := checkUser("startTask.userIdentity", s.StartTask.UserIdentity, s.UserAccounts); err != nil {
			return err
		}
	}
	return checkMetadata(s.Metadata)
}

func (s *PoolSpecification) normalizeImage() error {
	vm, cs := s.VirtualMachineConfiguration, s.CloudServiceConfiguration
	switch {
	case vm == nil && cs == nil:
		return Missing("virtualMachineConfiguration")
	case vm != nil && cs != nil:
		return InvalidValue("cloudServiceConfiguration", cs.OSFamily, "virtualMachineConfiguration and cloudServiceConfiguration are mutually exclusive")
	case cs != nil && cs.OSFamily == "":
		return Missing("cloudServiceConfiguration.osFamily")
	case cs != nil:
		if cs.OSVersion == "" {
			cs.OSVersion = "*"
		}
		return nil
	case vm.NodeAgentSKUID == "":
		return Missing("virtualMachineConfiguration.nodeAgentSKUId")
	case isWindowsAgent(vm.NodeAgentSKUID):
		return InvalidValue("virtualMachineConfiguration.nodeAgentSKUId", vm.NodeAgentSKUID, "Nodes run Linux; choose one of the supported images")
	case vm.ImageReference == ImageReference{}:
		return Missing("virtualMachineConfiguration.imageReference")
	case present(vm.ContainerConfiguration):
		return NotSupported("virtualMachineConfiguration.containerConfiguration", "Containers are not supported by this release")
	case len(vm.Extensions) > 0:
		return NotSupported("virtualMachineConfiguration.extensions", "There are no virtual machines whose extensions could be installed; use a start task")
	}
	if vm.ImageReference.Version == "" && vm.ImageReference.Publisher != "" {
		vm.ImageReference.Version = "latest"
	}
	return nil
}

func (s *PoolSpecification) refuseUnsupported() error {
	switch {
	case s.EnableAutoScale || s.AutoScaleFormula != "":
		return NotSupported("enableAutoScale", "Automatic scaling is not supported by this release; set targetDedicatedNodes and resize the pool")
	case len(s.ApplicationPackageReferences) > 0:
		return NotSupported("applicationPackageReferences", "Application packages are not supported by this release; use resourceFiles")
	case len(s.CertificateReferences) > 0:
		return NotSupported("certificateReferences", "Certificates are not supported by this release; use resourceFiles")
	case len(s.MountConfiguration) > 0:
		return NotSupported("mountConfiguration", "Mounts are not supported by this release")
	}
	return nil
}

// present tells whether an opaque part says anything.
func present(o Opaque) bool { return len(o) > 0 && string(o) != "null" }

func checkTarget(property string, target int) error {
	if target < 0 || target > MaxNodesPerPool {
		return InvalidValue(property, target, "It is 0 to %d", MaxNodesPerPool)
	}
	return nil
}

func normalizeResizeTimeout(d *Duration) (*Duration, error) {
	if d == nil {
		timeout := defaultResizeTimeout
		return &timeout, nil
	}
	if *d < minResizeTimeout || *d > maxResizeTimeout {
		return nil, InvalidValue("resizeTimeout", *d, "It is 5 minutes to 168 hours")
	}
	return d, nil
}

func normalizeUserAccounts(accounts []UserAccount) error {
	names := map[string]bool{}
	for i := range accounts {
		a, at := &accounts[i], fmt.Sprintf("userAccounts[%d]", i)
		if a.Name == "" || len(a.Name) > 20 || names[Key(a.Name)] {
			return InvalidValue(at+".name", a.Name, "A user has a name of 1 to 20 characters that no other user of the pool has")
		}
		names[Key(a.Name)] = true
		a.Password = ""
		a.LinuxUserConfiguration = without(a.LinuxUserConfiguration, "sshPrivateKey")
		if err := word(at+".elevationLevel", &a.ElevationLevel, ElevationNonAdmin, ElevationAdmin); err != nil {
			return err
		}
	}
	return nil
}

// fillLoginModes says how users of a pool of Windows log in that were not told,
// as the service does: a cloud service is one.
func (s *PoolSpecification) fillLoginModes() {
	mode := ""
	switch {
	case s.CloudServiceConfiguration != nil:
		mode = "interactive"
	case s.VirtualMachineConfiguration != nil && isWindowsAgent(s.VirtualMachineConfiguration.NodeAgentSKUID):
		mode = "batch"
	}
	for i := range s.UserAccounts {
		a := &s.UserAccounts[i]
		if mode == "" {
			continue
		}
		if !present(a.WindowsUserConfiguration) {
			a.WindowsUserConfiguration = Opaque("{}")
		}
		a.WindowsUserConfiguration = tidyKept(a.WindowsUserConfiguration, map[string]any{"loginMode": mode}, nil)
	}
}

func isWindowsAgent(sku string) bool { return strings.HasPrefix(Key(sku), "batch.node.windows") }

func checkUser(property string, u *UserIdentity, accounts []UserAccount) error {
	if u == nil || u.Username == "" {
		return nil
	}
	if !slices.ContainsFunc(accounts, func(a UserAccount) bool { return Key(a.Name) == Key(u.Username) }) {
		return InvalidValue(property+".username", u.Username, "The pool has no user account of that name")
	}
	return nil
}

func (t *StartTask) normalize() error {
	if t == nil {
		return nil
	}
	if err := checkCommandLine("startTask.commandLine", t.CommandLine); err != nil {
		return err
	}
	if present(t.ContainerSettings) {
		return NotSupported("startTask.containerSettings", "Containers are not supported by this release")
	}
	if err := checkResourceFiles("startTask.resourceFiles", t.ResourceFiles); err != nil {
		return err
	}
	if err := checkEnvironment("startTask.environmentSettings", t.EnvironmentSettings); err != nil {
		return err
	}
	if err := checkRetries("startTask.maxTaskRetryCount", t.MaxTaskRetryCount); err != nil {
		return err
	}
	if t.WaitForSuccess == nil {
		wait := true
		t.WaitForSuccess = &wait
	}
	var err error
	t.UserIdentity, err = normalizeUser("startTask.userIdentity", t.UserIdentity, ScopePool)
	return err
}

// NewPool makes the pool of a normalized specification. It starts resizing if
// it has a target.
func NewPool(account AccountName, s PoolSpecification, now time.Time) Pool {
	p := Pool{
		PoolSpecification: s, Account: account, Stamp: Stamp(now.UnixMicro()), CreationTime: now,
		State: PoolActive, StateTransitionTime: now,
		AllocationState: AllocationSteady, AllocationStateTransitionTime: now,
	}
	if s.TargetDedicatedNodes+s.TargetLowPriorityNodes > 0 {
		p.startResizing(now, DeallocateRequeue, *p.ResizeTimeout)
	}
	return p
}

// allocationMoves are the legal moves of the allocation state.
var allocationMoves = map[AllocationState][]AllocationState{
	AllocationSteady:   {AllocationResizing},
	AllocationResizing: {AllocationSteady, AllocationStopping},
	AllocationStopping: {AllocationSteady},
}

func (p *Pool) startResizing(now time.Time, option NodeDeallocationOption, timeout Duration) {
	p.AllocationState, p.AllocationStateTransitionTime = AllocationResizing, now
	p.ResizeErrors, p.Deallocation = nil, option
	p.ResizeDeadline, p.RunningTimeout = now.Add(timeout.Std()), timeout
}

// Resize sets new targets; PoolBeingResized while a resize runs.
func (p *Pool) Resize(r PoolResize, now time.Time) error {
	if err := p.mayResize(); err != nil {
		return err
	}
	if r.TargetDedicatedNodes == nil && r.TargetLowPriorityNodes == nil {
		return Missing("targetDedicatedNodes")
	}
	if err := word("nodeDeallocationOption", &r.NodeDeallocationOption, DeallocateRequeue,
		DeallocateTerminate, DeallocateTaskCompletion, DeallocateRetainedData); err != nil {
		return err
	}
	timeout, err := normalizeResizeTimeout(r.ResizeTimeout)
	if err != nil {
		return err
	}
	dedicated, low := p.TargetDedicatedNodes, p.TargetLowPriorityNodes
	setIf(&dedicated, r.TargetDedicatedNodes)
	setIf(&low, r.TargetLowPriorityNodes)
	if err := checkTarget("targetDedicatedNodes", dedicated); err != nil {
		return err
	}
	if err := checkTarget("targetLowPriorityNodes", low); err != nil {
		return err
	}
	p.TargetDedicatedNodes, p.TargetLowPriorityNodes = dedicated, low
	p.startResizing(now, r.NodeDeallocationOption, *timeout)
	p.Stamp = p.Stamp.Next(now)
	return nil
}

// mayResize refuses while the pool goes away or is resizing already.
func (p *Pool) mayResize() error {
	switch {
	case p.State == PoolDeleting:
		return Errorf(CodePoolBeingDeleted, "The specified pool is being deleted.")
	case !slices.Contains(allocationMoves[p.AllocationState], AllocationResizing):
		return Errorf(CodePoolBeingResized, "The specified pool is being resized; wait until its allocation state is steady or stop the resize.")
	}
	return nil
}

// RemoveNodes begins to remove named nodes: targets shrink by as many as are
// of each kind. Dedicated and lowPriority count the listed nodes that exist.
func (p *Pool) RemoveNodes(r *NodeRemoval, dedicated, lowPriority int, now time.Time) error {
	if err := p.mayResize(); err != nil {
		return err
	}
	if len(r.NodeList) == 0 || len(r.NodeList) > 100 {
		return InvalidValue("nodeList", len(r.NodeList), "It has 1 to 100 nodes")
	}
	if err := word("nodeDeallocationOption", &r.NodeDeallocationOption, DeallocateRequeue,
		DeallocateTerminate, DeallocateTaskCompletion, DeallocateRetainedData); err != nil {
		return err
	}
	timeout, err := normalizeResizeTimeout(r.ResizeTimeout)
	if err != nil {
		return err
	}
	p.TargetDedicatedNodes = max(0, p.TargetDedicatedNodes-dedicated)
	p.TargetLowPriorityNodes = max(0, p.TargetLowPriorityNodes-lowPriority)
	p.startResizing(now, r.NodeDeallocationOption, *timeout)
	p.Stamp = p.Stamp.Next(now)
	return nil
}

// StopResize ends a running resize where it stands.
func (p *Pool) StopResize(now time.Time) error {
	if p.State == PoolDeleting {
		return Errorf(CodePoolBeingDeleted, "The specified pool is being deleted.")
	}
	if p.AllocationState != AllocationResizing {
		return Errorf(CodePoolNotResizing, "The specified pool is not being resized.")
	}
	p.AllocationState, p.AllocationStateTransitionTime = AllocationStopping, now
	p.Stamp = p.Stamp.Next(now)
	return nil
}

// Settle ends a resize, reached or not.
func (p *Pool) Settle(errs []ResizeError, now time.Time) {
	if p.AllocationState == AllocationSteady {
		return
	}
	p.AllocationState, p.AllocationStateTransitionTime = AllocationSteady, now
	p.ResizeErrors = errs
	p.Stamp = p.Stamp.Next(now)
}

// Delete begins to delete the pool; PoolBeingDeleted the second time.
func (p *Pool) Delete(now time.Time) error {
	if p.State == PoolDeleting {
		return Errorf(CodePoolBeingDeleted, "The specified pool is being deleted.")
	}
	p.State, p.StateTransitionTime = PoolDeleting, now
	p.TargetDedicatedNodes, p.TargetLowPriorityNodes = 0, 0
	p.startResizing(now, DeallocateRequeue, *p.ResizeTimeout)
	p.Stamp = p.Stamp.Next(now)
	return nil
}

// Patch changes what the patch carries. Some properties may only change while
// the pool has no nodes, as in the service since 2024.
func (p *Pool) Patch(patch PoolPatch, now time.Time) error {
	next := p.PoolSpecification
	empty := p.CurrentDedicatedNodes+p.CurrentLowPriorityNodes == 0 && p.AllocationState == AllocationSteady
	for property, changes := range map[string]bool{
		"vmSize": patch.VMSize != "", "taskSlotsPerNode": patch.TaskSlotsPerNode != nil,
		"virtualMachineConfiguration": patch.VirtualMachineConfiguration != nil,
		"userAccounts":                patch.UserAccounts != nil,
	} {
		if changes && !empty {
			return Errorf(CodeOperationInvalidForState, "The property %s can be changed only while the pool has no compute nodes.", property)
		}
	}
	setIf(&next.DisplayName, patch.DisplayName)
	setIf(&next.EnableInterNodeCommunication, patch.EnableInterNodeCommunication)
	setIf(&next.Metadata, patch.Metadata)
	setIf(&next.TaskSlotsPerNode, patch.TaskSlotsPerNode)
	if patch.VMSize != "" {
		next.VMSize = patch.VMSize
	}
	if patch.StartTask != nil {
		next.StartTask = patch.StartTask
	}
	if patch.VirtualMachineConfiguration != nil {
		next.VirtualMachineConfiguration = patch.VirtualMachineConfiguration
	}
	if patch.TaskSchedulingPolicy != nil {
		next.TaskSchedulingPolicy = patch.TaskSchedulingPolicy
	}
	if patch.UserAccounts != nil {
		next.UserAccounts = patch.UserAccounts
	}
	if patch.TargetNodeCommunicationMode != "" {
		next.TargetNodeCommunicationMode = patch.TargetNodeCommunicationMode
	}
	for to, from := range map[*Opaque]Opaque{
		&next.NetworkConfiguration: patch.NetworkConfiguration, &next.UpgradePolicy: patch.UpgradePolicy, &next.ResourceTags: patch.ResourceTags,
	} {
		if present(from) {
			*to = from
		}
	}
	next.ApplicationPackageReferences = patch.ApplicationPackageReferences
	next.CertificateReferences = patch.CertificateReferences
	next.MountConfiguration = patch.MountConfiguration
	return p.change(next, now)
}

// Replace takes start task and metadata from the patch, absent ones included,
// as the update properties operation does.
func (p *Pool) Replace(patch PoolPatch, now time.Time) error {
	next := p.PoolSpecification
	next.StartTask, next.Metadata = patch.StartTask, nil
	setIf(&next.Metadata, patch.Metadata)
	if len(next.Metadata) == 0 {
		next.Metadata = nil // clients must send a list
	}
	next.ApplicationPackageReferences, next.CertificateReferences = nil, nil
	if len(patch.ApplicationPackageReferences)+len(patch.CertificateReferences) > 0 {
		next.ApplicationPackageReferences = patch.ApplicationPackageReferences
		next.CertificateReferences = patch.CertificateReferences
	}
	next.TargetNodeCommunicationMode = cmp.Or(patch.TargetNodeCommunicationMode, "default")
	return p.change(next, now)
}

func (p *Pool) change(next PoolSpecification, now time.Time) error {
	if p.State == PoolDeleting {
		return Errorf(CodePoolBeingDeleted, "The specified pool is being deleted.")
	}
	if err := next.Normalize(); err != nil {
		return err
	}
	p.PoolSpecification = next
	p.Stamp = p.Stamp.Next(now)
	return nil
}

func setIf[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// without drops a member of an opaque object. Secrets are kept for nobody.
func without(o Opaque, member string) Opaque {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(o, &members); err != nil || members[member] == nil {
		return o
	}
	delete(members, member)
	text, err := json.Marshal(members)
	if err != nil {
		return nil
	}
	return text
}
