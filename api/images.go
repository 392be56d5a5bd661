package api

import (
	"strconv"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/odata"
)

// imageAnswer is an image that a pool may name.
type imageAnswer struct {
	NodeAgentSKUID   string               `json:"nodeAgentSKUId"`
	ImageReference   batch.ImageReference `json:"imageReference"`
	OSType           string               `json:"osType"`
	Capabilities     []string             `json:"capabilities,omitempty"`
	EndOfLife        *batch.Time          `json:"batchSupportEndOfLife,omitempty"`
	VerificationType string               `json:"verificationType"`
}

// agentAnswer is the older form: images by the node agent that they go with.
type agentAnswer struct {
	ID                      string                 `json:"id"`
	VerifiedImageReferences []batch.ImageReference `json:"verifiedImageReferences"`
	OSType                  string                 `json:"osType"`
}

const (
	osLinux  = "linux"
	verified = "verified"
)

// image is a row of the table of images.
type image struct {
	agent, publisher, offer, sku string
}

// images are Linux images of the marketplace that clients look for. Tasks run
// on the machine's own system, whatever a pool names; the table lets clients
// that choose from it work unchanged. There is no Windows image, because no
// node runs Windows.
var images = []image{
	{"batch.node.ubuntu 24.04", "canonical", "ubuntu-24_04-lts", "server"},
	{"batch.node.ubuntu 24.04", "microsoft-dsvm", "ubuntu-hpc", "2404"},
	{"batch.node.ubuntu 22.04", "canonical", "0001-com-ubuntu-server-jammy", "22_04-lts"},
	{"batch.node.ubuntu 22.04", "canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-gen2"},
	{"batch.node.ubuntu 22.04", "microsoft-dsvm", "ubuntu-hpc", "2204"},
	{"batch.node.ubuntu 20.04", "canonical", "0001-com-ubuntu-server-focal", "20_04-lts"},
	{"batch.node.ubuntu 20.04", "canonical", "0001-com-ubuntu-server-focal", "20_04-lts-gen2"},
	{"batch.node.ubuntu 20.04", "microsoft-azure-batch", "ubuntu-server-container", "20-04-lts"},
	{"batch.node.debian 12", "debian", "debian-12", "12"},
	{"batch.node.debian 12", "debian", "debian-12", "12-gen2"},
	{"batch.node.debian 11", "debian", "debian-11", "11"},
	{"batch.node.debian 11", "debian", "debian-11", "11-gen2"},
	{"batch.node.el 9", "almalinux", "almalinux-x86_64", "9-gen2"},
	{"batch.node.el 9", "almalinux", "almalinux-hpc", "9_3-hpc-gen2"},
	{"batch.node.el 8", "almalinux", "almalinux-x86_64", "8-gen2"},
	{"batch.node.el 8", "almalinux", "almalinux-hpc", "8_7-hpc-gen2"},
	{"batch.node.el 8", "resf", "rockylinux-x86_64", "8-base"},
	{"batch.node.el 9", "resf", "rockylinux-x86_64", "9-base"},
}

// reference names the image as a pool does. It has no version but the latest, since
// nothing is ever made from it.
func (i image) reference() batch.ImageReference {
	return batch.ImageReference{Publisher: i.publisher, Offer: i.offer, SKU: i.sku, Version: "latest"}
}

// listImages reads the filter before the page, as for any list, although the table
// would fit into one: clients send the options of lists to all of them.
func listImages(c *call) error {
	pass, err := c.imageFilter(odata.Fields{
		"nodeAgentSKUId": {Kind: odata.String}, "osType": {Kind: odata.Enum}, "verificationType": {Kind: odata.Enum},
		"imageReference/publisher": {Kind: odata.ID}, "imageReference/offer": {Kind: odata.ID}, "imageReference/sku": {Kind: odata.ID},
		"batchSupportEndOfLife": {Kind: odata.Time},
	})
	if err != nil {
		return err
	}
	var answers []imageAnswer
	for _, i := range images {
		if pass(i) {
			answers = append(answers, imageAnswer{
				NodeAgentSKUID: i.agent, ImageReference: i.reference(), OSType: osLinux, VerificationType: verified,
			})
		}
	}
	return listTable(c, "supportedimages", answers)
}

// listNodeAgents is listImages for versions that ask for node agents and look for
// the images of each.
func listNodeAgents(c *call) error {
	pass, err := c.imageFilter(odata.Fields{"id": {Kind: odata.String}, "osType": {Kind: odata.Enum}})
	if err != nil {
		return err
	}
	var answers []agentAnswer
	at := map[string]int{}
	for _, i := range images {
		if !pass(i) {
			continue
		}
		n, seen := at[i.agent]
		if !seen {
			n = len(answers)
			at[i.agent] = n
			answers = append(answers, agentAnswer{ID: i.agent, OSType: osLinux})
		}
		answers[n].VerifiedImageReferences = append(answers[n].VerifiedImageReferences, i.reference())
	}
	return listTable(c, "nodeagentskus", answers)
}

// listTable answers with a page of a list that is fixed; its place is a number.
func listTable[T any](c *call, metadata string, all []T) error {
	q, err := c.page(maxPage)
	if err != nil {
		return err
	}
	from := 0
	if q.Token != "" {
		if from, err = strconv.Atoi(q.Token); err != nil || from < 0 || from > len(all) {
			return badParameter(tokenParameter, q.Token, "It is not one that a list has given")
		}
	}
	to := min(len(all), from+q.Max)
	page := control.Page[T]{Items: all[from:to]}
	if to < len(all) {
		page.Next = strconv.Itoa(to)
	}
	return list(c, kindOther, metadata, page, func(_ *call, item *T) any { return item })
}

// imageFilter reads $filter for the table of images.
func (c *call) imageFilter(fields odata.Fields) (pass func(image) bool, err error) {
	q, err := c.page(maxPage)
	if err != nil {
		return nil, err
	}
	filter, err := odata.ParseFilter(q.Filter, fields)
	if err != nil {
		return nil, badParameter("$filter", q.Filter, err.Error())
	}
	return func(i image) bool {
		return filter.Match(func(name string) any {
			switch name {
			case "id", "nodeAgentSKUId":
				return i.agent
			case "osType":
				return osLinux
			case "verificationType":
				return verified
			case "imageReference/publisher":
				return i.publisher
			case "imageReference/offer":
				return i.offer
			case "imageReference/sku":
				return i.sku
			}
			return nil
		})
	}, nil
}
