package blob

import (
	"net/http"
	"slices"
	"strings"

	"github.com/batchyard/batchyard/auth"
)

// operation is one thing that the endpoint does.
type operation struct {
	name    string
	method  string // GET stands for HEAD too
	level   auth.Level
	restype string
	comp    string
	needs   string // permissions, in the letters of sp, of which a SAS has one
	serve   func(*Server, *call) error
}

// routes lists the whole surface.
func routes() []operation {
	const (
		account   = auth.ServiceLevel
		container = auth.ContainerLevel
		blob      = auth.ObjectLevel
		get       = http.MethodGet
		put       = http.MethodPut
		del       = http.MethodDelete
	)
	return []operation{
		{"ListContainers", get, account, "", "list", "l", (*Server).listContainers},
		{"GetAccountInformation", get, account, "account", "properties", "rwdlac", (*Server).getAccount},
		{"GetServiceProperties", get, account, "service", "properties", "r", (*Server).getService},

		{"CreateContainer", put, container, "container", "", "cw", (*Server).createContainer},
		{"GetContainerProperties", get, container, "container", "", "r", (*Server).getContainer},
		{"DeleteContainer", del, container, "container", "", "d", (*Server).deleteContainer},
		{"GetContainerMetadata", get, container, "container", "metadata", "r", (*Server).getContainer},
		{"SetContainerMetadata", put, container, "container", "metadata", "w", (*Server).setContainerMetadata},
		{"ListBlobs", get, container, "container", "list", "l", (*Server).listBlobs},
		{"GetAccountInformation", get, container, "account", "properties", "rwdlac", (*Server).getAccount},

		{"PutBlob", put, blob, "", "", "cw", (*Server).putBlob},
		{"PutBlock", put, blob, "", "block", "w", (*Server).putBlock},
		{"PutBlockList", put, blob, "", "blocklist", "w", (*Server).putBlockList},
		{"GetBlockList", get, blob, "", "blocklist", "r", (*Server).getBlockList},
		{"GetBlob", get, blob, "", "", "r", (*Server).getBlob},
		{"GetBlobMetadata", get, blob, "", "metadata", "r", (*Server).getBlobMetadata},
		{"SetBlobMetadata", put, blob, "", "metadata", "w", (*Server).setBlobMetadata},
		{"SetBlobProperties", put, blob, "", "properties", "w", (*Server).setBlobProperties},
		{"DeleteBlob", del, blob, "", "", "d", (*Server).deleteBlob},
		{"AbortCopyBlob", put, blob, "", "copy", "w", (*Server).abortCopy},
		{"GetAccountInformation", get, blob, "account", "properties", "rwdlac", (*Server).getAccount},
	}
}

// unserved are the actions of the protocol that are not served here.
var unserved = []string{
	"acl", "appendblock", "batch", "blobs", "expiry", "immutabilitypolicies", "incrementalcopy", "lease",
	"legalhold", "page", "pagelist", "properties", "query", "rename", "seal", "snapshot", "stats", "tags", "tier",
	"undelete", "userdelegationkey",
}

// refusedParams name things that are not served, whatever the operation.
var refusedParams = []string{"snapshot", "versionid", "prevsnapshot", "deletetype", "startFrom", "endBefore"}

// find gives the operation of a request.
func (s *Server) find(c *call) (operation, error) {
	restype, comp := c.param("restype"), c.param("comp")
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var allowed []string
	for _, op := range s.routes {
		if op.level != c.at.level() || op.restype != restype || op.comp != comp {
			continue
		}
		if op.method == method {
			return op, c.checkParams()
		}
		allowed = append(allowed, op.method)
	}
	switch {
	case allowed != nil:
		c.w.Header().Set("Allow", strings.Join(allowed, ", "))
		return operation{}, refuse(unsupportedHTTPVerb, "The resource doesn't support the specified HTTP verb %s.", clip(c.r.Method))
	case slices.Contains(unserved, comp):
		return operation{}, refuse(featureNotSupported, "The operation comp=%s is not served here.", comp)
	case c.at.level() == auth.ContainerLevel && restype == "":
		return operation{}, refuse(invalidURI, "An address of a container needs restype=container; "+
			"blobs outside of a container are not served here.")
	case c.at.level() == auth.ServiceLevel && restype == "" && comp == "":
		return operation{}, refuse(invalidURI, "The address names nothing but the account.")
	case comp != "":
		return operation{}, invalidQuery("comp", comp, "there is no such operation here")
	default:
		return operation{}, invalidQuery("restype", restype, "there is no such resource here")
	}
}

func (c *call) checkParams() error {
	for _, name := range refusedParams {
		if c.query.Get(name) != "" {
			return refuse(unsupportedQueryParameter, "The query parameter %s is not supported here.", name).
				with("QueryParameterName", name).with("QueryParameterValue", clip(c.query.Get(name)))
		}
	}
	return nil
}
