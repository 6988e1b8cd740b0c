// Command intune is a source matcher: it asks Intune's SCEP validation API
// whether the challenge in a request is Intune's own and fits what is asked for.
// With `challenge matcher` nobody has to register anything.
//
// It trusts what login.microsoftonline.com, graph.microsoft.com and the service
// that they name answer over TLS, and nothing in a request. Only the code
// "Success" is an agreement; without a readable answer nothing is decided.
//
//	challenge matcher
//	matcher exec /opt/scepgate/intune {
//		sha256 <hex>
//		decides challenge
//		reveal challenge
//		timeout 5s
//		config {
//			tenant contoso.onmicrosoft.com
//			client_id <id of the app registration>
//			client_secret {file./etc/scepgate/intune.secret}
//		}
//	}
//
// docs/matchers/intune.md has the rest.
package main

import "github.com/scepgate/scepgate/plugins"

func main() { plugins.Serve(new(intune)) }
