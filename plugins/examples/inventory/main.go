// Command inventory is a matcher that knows devices from a CSV file: it agrees
// to a request for a device that is active there and that asks for exactly the
// names in its row. The file is read again when it has changed.
//
// It trusts the file and whoever may write it, and nothing in a request. What is
// wrong with the file is an error about all devices, never an agreement.
//
//	matcher exec /opt/scepgate/inventory {
//		sha256 <hex>
//		decides subject san
//		config {
//			file /etc/scepgate/inventory.csv
//		}
//	}
//
// The first line of the file names its columns, in any order:
//
//	serial  the asset's number, unique in the file
//	status  active, retired, or a word of your own, which is not active either
//	cn      the common name, unique in the file: devices are found by it
//	o, ou   further parts of the subject, if the file has such columns
//	dns, email, upn, ip, uri
//	        alternative names of a type, with blanks between several
//
// Other columns are the file's own business. An empty cell means that the
// request must not have that part.
package main

import "github.com/scepgate/scepgate/plugins"

func main() { plugins.Serve(new(inventory)) }
