package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/Azure/azure-sdk-for-go/services/batch/2020-09-01.12.0/batch"
)

func (w *walk) createPool(ctx context.Context) error {
	image, err := w.image(ctx)
	if err != nil {
		return err
	}
	pool := batch.PoolAddParameter{
		ID:          &w.pool,
		DisplayName: new("measures"),
		VMSize:      new("STANDARD_D2_V3"),
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			ImageReference: image.ImageReference,
			NodeAgentSKUID: image.NodeAgentSKUID,
		},
		TargetDedicatedNodes: new(int32(2)),
		TaskSlotsPerNode:     new(int32(4)),
		ResizeTimeout:        new("PT10M"),
		StartTask: &batch.StartTask{
			CommandLine:         new("/bin/sh -c 'echo ready: $AZ_BATCH_NODE_ID; echo $TOOL > $AZ_BATCH_NODE_SHARED_DIR/tool.txt'"),
			EnvironmentSettings: &[]batch.EnvironmentSetting{{Name: new("TOOL"), Value: new("sort")}},
			WaitForSuccess:      new(true),
		},
		Metadata: &[]batch.MetadataItem{{Name: new("client"), Value: new("go")}},
	}
	if err := w.poolExists(ctx, false); err != nil {
		return err
	}
	if _, err := w.pools.Add(ctx, pool, nil, nil, nil, nil); err != nil {
		return err
	}
	if err := w.poolExists(ctx, true); err != nil {
		return err
	}
	_, err = w.pools.Add(ctx, pool, nil, nil, nil, nil)
	if err := fails(err, "PoolExists", http.StatusConflict); err != nil {
		return err
	}
	_, err = w.getPool(ctx, w.pool+"-other")
	return fails(err, "PoolNotFound", http.StatusNotFound)
}

func (w *walk) image(ctx context.Context) (batch.ImageInformation, error) {
	images, err := w.accounts.ListSupportedImagesComplete(ctx, "", nil, nil, nil, nil, nil)
	for ; err == nil && images.NotDone(); err = images.NextWithContext(ctx) {
		if image := images.Value(); *image.NodeAgentSKUID == "batch.node.ubuntu 22.04" {
			return image, nil
		}
	}
	return batch.ImageInformation{}, errors.Join(err, errors.New("no image of Ubuntu 22.04"))
}

func (w *walk) poolExists(ctx context.Context, want bool) error {
	answer, err := w.pools.Exists(ctx, w.pool, nil, nil, nil, nil, "", "", nil, nil)
	if err != nil {
		return err
	}
	return equal("pool exists", !answer.HasHTTPStatus(http.StatusNotFound), want)
}

func (w *walk) getPool(ctx context.Context, id string) (batch.CloudPool, error) {
	return w.pools.Get(ctx, id, "", "", nil, nil, nil, nil, "", "", nil, nil)
}

func (w *walk) waitForNodes(ctx context.Context) error {
	if err := waitFor("two idle nodes", w.idle(ctx, 2)); err != nil {
		return err
	}
	pool, err := w.getPool(ctx, w.pool)
	if err != nil {
		return err
	}
	nodes, err := w.listNodes(ctx)
	if err != nil {
		return err
	}
	node, err := w.nodes.Get(ctx, w.pool, *nodes[0].ID, "", nil, nil, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("allocation state", pool.AllocationState, batch.Steady),
		equal("nodes", *pool.CurrentDedicatedNodes, *pool.TargetDedicatedNodes),
		equal("slots", *pool.TaskSlotsPerNode, 4),
		equal("resize timeout", *pool.ResizeTimeout, "PT10M"),
		equal("node", *node.ID, *nodes[0].ID),
		equal("node state", node.State, batch.Idle),
		equal("exit code of the start task", *node.StartTaskInfo.ExitCode, 0),
	)
}

// idle tells whether so many nodes of the pool are idle.
func (w *walk) idle(ctx context.Context, want int32) func() (bool, error) {
	return func() (bool, error) {
		counts, err := w.accounts.ListPoolNodeCounts(ctx, fmt.Sprintf("poolId eq '%s'", w.pool), nil, nil, nil, nil, nil)
		if err != nil || len(counts.Values()) == 0 {
			return false, err
		}
		return *counts.Values()[0].Dedicated.Idle == want, nil
	}
}

func (w *walk) listNodes(ctx context.Context) ([]batch.ComputeNode, error) {
	page, err := w.nodes.List(ctx, w.pool, "", "", nil, nil, nil, nil, nil)
	return page.Values(), err
}

func (w *walk) readNodeFiles(ctx context.Context) error {
	nodes, err := w.listNodes(ctx)
	if err != nil {
		return err
	}
	node := *nodes[0].ID
	names, err := w.fileNames(w.files.ListFromComputeNodePreparer(ctx, w.pool, node, "", new(true), nil, nil, nil, nil, nil))
	if err != nil {
		return err
	}
	text, err := w.readNodeFile(ctx, node, "startup/stdout.txt")
	if err != nil {
		return err
	}
	head, err := w.files.GetPropertiesFromComputeNode(ctx, w.pool, node, "shared/tool.txt", nil, nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	if _, err := w.files.DeleteFromComputeNode(ctx, w.pool, node, "shared/tool.txt", nil, nil, nil, nil, nil); err != nil {
		return err
	}
	_, err = w.readNodeFile(ctx, node, "shared/tool.txt")
	return errors.Join(
		equal("start task's output listed", slices.Contains(names, "startup/stdout.txt"), true),
		equal("shared file listed", slices.Contains(names, "shared/tool.txt"), true),
		equal("output of the start task", text, "ready: "+node+"\n"),
		equal("length", head.ContentLength, 5),
		fails(err, "FileNotFound", http.StatusNotFound),
	)
}

func (w *walk) readNodeFile(ctx context.Context, node, path string) (string, error) {
	file, err := w.files.GetFromComputeNode(ctx, w.pool, node, path, nil, nil, nil, nil, "", nil, nil)
	return content(file, err)
}

func (w *walk) changePool(ctx context.Context) error {
	before, err := w.getPool(ctx, w.pool)
	if err != nil {
		return err
	}
	if err := w.patchPool(ctx, "patched", ""); err != nil {
		return err
	}
	after, err := w.getPool(ctx, w.pool)
	if err != nil {
		return err
	}
	stale := w.patchPool(ctx, "stale", *before.ETag)
	if err := w.patchPool(ctx, "fresh", *after.ETag); err != nil {
		return err
	}
	_, err = w.pools.UpdateProperties(ctx, w.pool, batch.PoolUpdatePropertiesParameter{
		StartTask:                    before.StartTask,
		CertificateReferences:        &[]batch.CertificateReference{},
		ApplicationPackageReferences: &[]batch.ApplicationPackageReference{},
		Metadata:                     &[]batch.MetadataItem{{Name: new("stage"), Value: new("replaced")}},
	}, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	filter := fmt.Sprintf("startswith(id,'%s')", w.pool)
	pools, err := w.pools.List(ctx, filter, "id,state,metadata", "", nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("metadata", *(*after.Metadata)[0].Value, "patched"),
		equal("start task", *after.StartTask.CommandLine, *before.StartTask.CommandLine),
		fails(stale, "ConditionNotMet", http.StatusPreconditionFailed),
		equal("pools", len(pools.Values()), 1),
		equal("metadata in the list", *(*pools.Values()[0].Metadata)[0].Value, "replaced"),
	)
}

func (w *walk) patchPool(ctx context.Context, stage, ifMatch string) error {
	patch := batch.PoolPatchParameter{Metadata: &[]batch.MetadataItem{{Name: new("stage"), Value: &stage}}}
	_, err := w.pools.Patch(ctx, w.pool, patch, nil, nil, nil, nil, ifMatch, "", nil, nil)
	return err
}

func (w *walk) removeNode(ctx context.Context) error {
	nodes, err := w.listNodes(ctx)
	if err != nil {
		return err
	}
	removal := batch.NodeRemoveParameter{NodeList: &[]string{*nodes[0].ID}, NodeDeallocationOption: batch.Requeue}
	if _, err := w.pools.RemoveNodes(ctx, w.pool, removal, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	if err := w.steadyWith(ctx, 1); err != nil {
		return err
	}
	_, gone := w.nodes.Get(ctx, w.pool, *nodes[0].ID, "", nil, nil, nil, nil)
	return fails(gone, "NodeNotFound", http.StatusNotFound)
}

func (w *walk) steadyWith(ctx context.Context, nodes int32) error {
	return waitFor(fmt.Sprintf("pool with %d idle nodes", nodes), func() (bool, error) {
		pool, err := w.getPool(ctx, w.pool)
		if err != nil || pool.AllocationState != batch.Steady || *pool.CurrentDedicatedNodes != nodes {
			return false, err
		}
		return w.idle(ctx, nodes)()
	})
}

func (w *walk) resizePool(ctx context.Context) error {
	for _, nodes := range []int32{2, 1} {
		resize := batch.PoolResizeParameter{TargetDedicatedNodes: &nodes, TargetLowPriorityNodes: new(int32(0))}
		if _, err := w.pools.Resize(ctx, w.pool, resize, nil, nil, nil, nil, "", "", nil, nil); err != nil {
			return err
		}
		if err := w.steadyWith(ctx, nodes); err != nil {
			return err
		}
	}
	return nil
}
