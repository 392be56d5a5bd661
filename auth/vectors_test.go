package auth_test

// batchVectors are requests with signatures over what published clients sign,
// computed with Python's hmac module apart from this package. The key is
// devKey, the clock stands at noon.
var batchVectors = []struct {
	name, method, target string
	headers              map[string]string
	authorization        string
}{
	{
		name:          "the documented form with a body",
		method:        "POST",
		target:        "/jobs?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Length": "24", "Content-Type": "application/json;odata=minimalmetadata"},
		authorization: "SharedKey devaccount:hfYgV+2wzTdMNoyyQL+gCNfzhe4HhvftvPdiPzQvWqU=",
	},
	{
		name:          "a list without a length",
		method:        "GET",
		target:        "/pools?api-version=2024-07-01.20.0&$filter=state%20eq%20%27active%27",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:eJxHSGk7t19jD3+2I4oAmPkE2fH5s0D6vDITliDIJ9U=",
	},
	{
		name:          "plus for a space in a value",
		method:        "GET",
		target:        "/pools?$filter=id+eq+%27a%2Bb%27&api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:P5vr4Jfw3QZp4D4JKWQ3QhaEWIjk3ixsCvtlMQKHkM4=",
	},
	{
		name:          "Date in place of ocp-date",
		method:        "GET",
		target:        "/pools?api-version=2024-07-01.20.0",
		headers:       map[string]string{"Date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:8s8XL6HRydFKi/KIBn3jmt+JbOstrvwbft3x8iDIKG0=",
	},
	{
		name:          "both dates, the line of Date left empty",
		method:        "GET",
		target:        "/pools?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Date": "Sun, 01 Nov 2026 11:59:59 GMT"},
		authorization: "SharedKey devaccount:3W1+CMLUvPnqtdtQNUnf5s6NtdwnZrUWl2YWuq3nbjI=",
	},
	{
		name:          "both dates, Date signed all the same",
		method:        "GET",
		target:        "/pools?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Date": "Sun, 01 Nov 2026 11:59:59 GMT"},
		authorization: "SharedKey devaccount:8N7kXiWJlnDUPZNuh9LUueVV0E1NOfdhQXU6Esr0fgQ=",
	},
	{
		name:          "Python 14 skips a parameter without a value",
		method:        "GET",
		target:        "/jobs?$select=&api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "client-request-id": "00000000-0000-0000-0000-000000000001"},
		authorization: "SharedKey devaccount:nEvQGgGEIkD+zNshPuSRPCrDp8gkV/Q7AZe7PwyzLss=",
	},
	{
		name:          "Python 15 keeps the case of a name",
		method:        "GET",
		target:        "/jobs?api-version=2024-07-01.20.0&timeOut=30&maxresults=10",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:NRoT4GspMXB7AzE6WsE2Ciiy3ieS8bJGIrjkIvvZQfE=",
	},
	{
		name:          "Python 15 signs a zero that it does not send",
		method:        "DELETE",
		target:        "/jobs/j1?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:mJF4ML7LKa/2KltJU2NcVf9dp+J7rKtmMydY38Knc3g=",
	},
	{
		name:          "JavaScript 10 sends and signs a content type on GET",
		method:        "GET",
		target:        "/pools/p1?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Type": "application/json; odata=minimalmetadata"},
		authorization: "SharedKey devaccount:FGacVPTuLcaj6X4Vz30AcMrMukxX+nVT4BrvIqpjk4g=",
	},
	{
		name:          "JavaScript 10 on DELETE",
		method:        "DELETE",
		target:        "/pools/p1?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Type": "application/json; odata=minimalmetadata"},
		authorization: "SharedKey devaccount:sBCTtM+um0hPOfEOyKwpCSH4jiz8GJfMUZe4r87WJZo=",
	},
	{
		name:          "JavaScript 9 signs a zero on DELETE",
		method:        "DELETE",
		target:        "/pools/p1?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Type": "application/json; odata=minimalmetadata"},
		authorization: "SharedKey devaccount:6YsDg1HeoktC7oknZ5ldKffy6Xt3cnDdjvPTcayHesQ=",
	},
	{
		name:          "JavaScript 9 signs a zero on HEAD",
		method:        "HEAD",
		target:        "/pools/p1?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Type": "application/json; odata=minimalmetadata"},
		authorization: "SharedKey devaccount:Zl16OxvnB6n5aPFpDHSnEXws+Rmof+iN60u0tv+U3ak=",
	},
	{
		name:          "JavaScript 9 signs a parameter without a value",
		method:        "GET",
		target:        "/jobs?$select=&api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Type": "application/json; odata=minimalmetadata"},
		authorization: "SharedKey devaccount:dVuqXWtvqCsb7oQHSnxhkrKYW+t8oNDH47ji8T3Bl9A=",
	},
	{
		name:          "an action as a bare word",
		method:        "POST",
		target:        "/pools/p1?api-version=2015-06-01.2.0&resize",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Type": "application/json; odata=minimalmetadata", "Content-Length": "30"},
		authorization: "SharedKey devaccount:wJ9m/ok1gBqM3OL/otiyHgNTmTfkxFcyamfJThdK/qE=",
	},
	{
		name:          "Java lower-cases the account and sends a zero",
		method:        "GET",
		target:        "/tasks?api-version=2024-07-01.20.0",
		headers:       map[string]string{"Date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Length": "0", "Content-Type": "application/json"},
		authorization: "SharedKey DevAccount:TvQW5HH+aI3Ap5Vqku8d/QwmKyESlkyf6p820chwXu4=",
	},
	{
		name:          "an escaped path stays escaped",
		method:        "GET",
		target:        "/jobs/j%201/tasks/t/files/wd%2Fout%20put.txt?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "ocp-range": "bytes=0-1023"},
		authorization: "SharedKey devaccount:r9j0GPkGdUpUHVrk6KwwFYz3rqZdgHE+u17WgIYvMXw=",
	},
	{
		name:          "conditional headers and a range",
		method:        "GET",
		target:        "/jobs/j?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "If-Match": "0x8DABC", "If-None-Match": "0x8DABD", "If-Modified-Since": "Sun, 01 Nov 2026 11:00:00 GMT", "If-Unmodified-Since": "Sun, 01 Nov 2026 11:30:00 GMT", "Range": "bytes=0-5"},
		authorization: "SharedKey devaccount:t2y/m+hn+rhqrseg8NJaPHWZCBfMDplGR/2efw6f/oU=",
	},
	{
		name:          "several values are sorted and joined",
		method:        "GET",
		target:        "/jobs?x=b&api-version=2024-07-01.20.0&x=a",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:IijoaWPrsDPPzloVN6tYlKyDArrMt6HmlWz81ctvsds=",
	},
	{
		name:          "several values, the first alone",
		method:        "GET",
		target:        "/jobs?x=b&api-version=2024-07-01.20.0&x=a",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT"},
		authorization: "SharedKey devaccount:64sUJzguSEIf/stTebQv0ucwEIdttM/R9oeHjGNYVUY=",
	},
	{
		name:          "an ocp header without a value, skipped",
		method:        "GET",
		target:        "/jobs?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "ocp-range": ""},
		authorization: "SharedKey devaccount:nEvQGgGEIkD+zNshPuSRPCrDp8gkV/Q7AZe7PwyzLss=",
	},
	{
		name:          "an ocp header without a value, signed",
		method:        "GET",
		target:        "/jobs?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "ocp-range": ""},
		authorization: "SharedKey devaccount:PWebJUThMALa2mI/QlDrc6zBzAXpPI7RxdyVTB0poIk=",
	},
	{
		name:          "Shared Key Lite",
		method:        "POST",
		target:        "/jobs?api-version=2024-07-01.20.0",
		headers:       map[string]string{"ocp-date": "Sun, 01 Nov 2026 12:00:00 GMT", "Content-Length": "24", "Content-Type": "application/json; odata=minimalmetadata"},
		authorization: "SharedKeyLite devaccount:k3ikg3AtZz5FueSqor42sfTFBgVqkt1AXmEYMnlYl3U=",
	},
}

// blobVectors are requests as in the description of the storage protocol, with
// signatures computed with Python's hmac module apart from this package.
var blobVectors = []struct {
	name, method, target string
	headers              map[string]string
	at, authorization    string
}{
	{
		name:          "a container, version 2015-02-21",
		method:        "GET",
		target:        "/mycontainer?restype=container&comp=metadata&timeout=20",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:1u9lui2jDxj0+fpbHjQ5m5NnastJRSYM+PSmfi8TXx4=",
	},
	{
		name:          "a zero length signed, before 2015-02-21",
		method:        "GET",
		target:        "/mycontainer?restype=container&comp=metadata&timeout=20",
		headers:       map[string]string{"x-ms-date": "Sun, 11 Oct 2009 21:49:13 GMT", "x-ms-version": "2009-09-19"},
		at:            "Sun, 11 Oct 2009 21:49:13 GMT",
		authorization: "SharedKey myaccount:ewn50UPe32G+UnY0oTDCuZn83MelGwD0Pzh9MCeMY8c=",
	},
	{
		name:          "several values of a parameter",
		method:        "GET",
		target:        "/mycontainer?restype=container&comp=list&include=snapshots&include=metadata&include=uncommittedblobs",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:qthaFu+XRMRab2FfKeut5XZl1/nvdAhqiaOupMDoYWg=",
	},
	{
		name:          "Date in place of x-ms-date",
		method:        "PUT",
		target:        "/mycontainer/hello.txt",
		headers:       map[string]string{"Date": "Fri, 26 Jun 2015 23:39:12 GMT", "Content-Type": "text/plain; charset=UTF-8", "Content-Length": "11", "x-ms-blob-type": "BlockBlob", "x-ms-version": "2015-02-21"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:pHdSNlz04MXPC1O6guwA128nEtxaTcU1MVEwKyMmNBA=",
	},
	{
		name:          "Shared Key Lite",
		method:        "PUT",
		target:        "/mycontainer/hello.txt",
		headers:       map[string]string{"x-ms-date": "Sun, 11 Oct 2009 21:49:13 GMT", "Content-Type": "text/plain; charset=UTF-8", "Content-Length": "11", "x-ms-meta-m1": "v1", "x-ms-meta-m2": "v2"},
		at:            "Sun, 11 Oct 2009 21:49:13 GMT",
		authorization: "SharedKeyLite myaccount:sPauyI2T8RWD+wlRmj5kiJR4fIe5maGpdzxR/VkthSY=",
	},
	{
		name:          "Shared Key Lite with comp",
		method:        "GET",
		target:        "/mycontainer?restype=container&comp=list&timeout=20",
		headers:       map[string]string{"x-ms-date": "Sun, 11 Oct 2009 21:49:13 GMT"},
		at:            "Sun, 11 Oct 2009 21:49:13 GMT",
		authorization: "SharedKeyLite myaccount:/BSC2c1Tsvm2zMB8RpulVD5HWQxldH/AfV7raTQQgdE=",
	},
	{
		name:          "headers sorted as the service does",
		method:        "PUT",
		target:        "/mycontainer/h",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-meta-a0": "3", "x-ms-meta-a_b": "1", "x-ms-meta-ab": "2", "Content-Length": "0"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:QSXrEv/AyL1jgtsg1DzbzajTqimUAjQbLyjs7k3Q/kw=",
	},
	{
		name:          "headers sorted by bytes",
		method:        "PUT",
		target:        "/mycontainer/h",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-meta-a0": "3", "x-ms-meta-a_b": "1", "x-ms-meta-ab": "2", "Content-Length": "0"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:QkPXfkLOJuSen2QAwgopJLLBg8W1zKnzj+Vmesc7SUc=",
	},
	{
		name:          "a hyphen does not count at first",
		method:        "PUT",
		target:        "/mycontainer/h",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-meta-ac": "1", "x-ms-meta-a-b": "2", "x-ms-meta-ab": "3", "Content-Length": "0"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:Ey3yy4EOOsy1aDKw6D9w0ZK6efEwVYTFPjH2QeYcMwQ=",
	},
	{
		name:          "a header without a value left out, before 2016-05-31",
		method:        "PUT",
		target:        "/mycontainer/h",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-meta-a": "", "Content-Length": "0"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:e9LHUqFFL4SfQAOppfDnwHW7PW9RI6fCooFwiZd9R4w=",
	},
	{
		name:          "an emulator, the account in the path too",
		method:        "GET",
		target:        "/myaccount/mycontainer/a%20b?comp=metadata",
		headers:       map[string]string{"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT"},
		at:            "Fri, 26 Jun 2015 23:39:12 GMT",
		authorization: "SharedKey myaccount:4JIp6JWD4+UBoU1rqJk1A8xOs/al90QR2K4+U3HIhwk=",
	},
}

// sasVectors are grants on the container inputs of the account
// devstoreaccount1, on the blob "a b.txt" in it or on the account, signed with
// Python's hmac module apart from this package. They are valid at noon, over
// HTTPS, from 10.0.0.5.
var sasVectors = []struct{ name, query string }{
	{"a blob, 2015-02-21", "sv=2015-02-21&sr=b&sp=r&se=2026-11-02T00%3A00%3A00Z&st=2026-11-01T00%3A00%3A00Z&sig=8%2FIlFI7ZzOxUnq7JL%2FH44pLOgvsbulCVYbwloSKQ0yY%3D"},
	{"a blob, 2015-04-05", "sv=2015-04-05&sr=b&sp=r&se=2026-11-02T00%3A00%3A00Z&st=2026-11-01T00%3A00%3A00Z&sip=10.0.0.1-10.0.0.9&spr=https&rscc=no-cache&rscd=attachment%3B%20filename%3Da.txt&rsce=gzip&rscl=en&rsct=text%2Fplain&sig=eHUl0hziWAbol%2FP6u2AAm4I78%2Fjt3SB8E8ktB1S7%2Bds%3D"},
	{"a container, 2017-11-09", "sv=2017-11-09&sr=c&sp=rl&se=2026-11-02T00%3A00%3A00Z&sig=NCWPVSYr1Mg4Pt4w%2Fbu3n6a%2BdaC7Z6XeEDRkgccvY6U%3D"},
	{"a blob, 2018-11-09", "sv=2018-11-09&sr=b&sp=r&se=2026-11-02T00%3A00%3A00Z&sip=10.0.0.5&sig=s%2B1Vs95uu%2FBTopVa%2Bl3hvnLc63QWgFvO4NvbteaHNMw%3D"},
	{"a container, 2020-10-02", "sv=2020-10-02&sr=c&sp=racwdl&se=2026-11-02T00%3A00%3A00Z&rscc=no-cache&rscd=attachment%3B%20filename%3Da.txt&rsce=gzip&rscl=en&rsct=text%2Fplain&sig=ON%2Bg3syzR%2FKMaTCW6yNxeeOvzNl2h5cYDplBB%2BLHM5w%3D"},
	{"a blob, 2020-12-06", "sv=2020-12-06&sr=b&sp=r&se=2026-11-02T00%3A00%3A00Z&spr=https%2Chttp&ses=scope1&rscc=no-cache&rscd=attachment%3B%20filename%3Da.txt&rsce=gzip&rscl=en&rsct=text%2Fplain&sig=LY3WHFV6qLadI2Fg0PeQB1cM4mjkWJgVtD00qxf5flQ%3D"},
	{"a container, 2025-07-05", "sv=2025-07-05&sr=c&sp=rwdl&se=2026-11-02T00%3A00%3A00Z&st=2026-11-01T00%3A00%3A00Z&sip=10.0.0.1-10.0.0.9&spr=https&sig=c8%2FC1CCiWqbJWTOCdeWZ3TQtSG1WhXHYxDLi%2F0puscw%3D"},
	{"a date without a time", "sv=2021-12-02&sr=c&sp=r&se=2026-11-02&sig=dLhmqHh%2B4DeSuQx5ZKJ2%2BxhicnWDo0VFTWEJ0fMFMzU%3D"},
	{"a time without seconds", "sv=2021-12-02&sr=c&sp=r&se=2026-11-02T00%3A00Z&sig=n2O5KmKFNzK6RXWL5PhFmcOOQOjNQ7rmuwl1DoJiouA%3D"},
	{"a time with fractions", "sv=2021-12-02&sr=c&sp=r&se=2026-11-02T00%3A00%3A00.0000000Z&sig=gkSw%2Bt2p6AXT%2FQ7qeWGQIvfpYVzQ31I6bRbCKWdijJk%3D"},
	{"an account, 2015-04-05", "sv=2015-04-05&sp=rwdlacup&ss=bfqt&srt=sco&se=2026-11-02T00%3A00%3A00Z&st=2026-11-01T00%3A00%3A00Z&sig=vG6rqt3Psmwuy%2Bc4mkvNEd3sxb5%2BRA%2FiHOOa%2FkFaC4Y%3D"},
	{"an account, 2019-12-12", "sv=2019-12-12&sp=rl&ss=b&srt=co&se=2026-11-02T00%3A00%3A00Z&sip=10.0.0.1-10.0.0.9&spr=https&sig=Pfjh%2Fueg6pghnYt1bJso2VU4qHVfbAlEXd4D%2FVUJd1g%3D"},
	{"an account, 2024-11-04", "sv=2024-11-04&sp=rwl&ss=b&srt=o&se=2026-11-02T00%3A00%3A00Z&ses=scope1&sig=XMoap04qn%2BxXsKQl8E%2FEW2uX0ICBRIJFm6rA7IF3Nsk%3D"},
}
