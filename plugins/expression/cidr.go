package expression

import (
	"net/netip"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// inCIDR is in_cidr(address, network). An address that is none, as in a dry
// run, has no answer: false would make !in_cidr(…) true.
func inCIDR() cel.EnvOption {
	return cel.Function("in_cidr", cel.Overload("in_cidr_string_string",
		[]*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
		cel.BinaryBinding(func(address, network ref.Val) ref.Val {
			a, aOK := address.(types.String)
			n, nOK := network.(types.String)
			if !aOK || !nOK {
				return types.MaybeNoSuchOverloadErr(address)
			}
			prefix, err := netip.ParsePrefix(string(n))
			if err != nil {
				return types.NewErrFromString("in_cidr: no network")
			}
			ip, err := netip.ParseAddr(string(a))
			if err != nil {
				return types.NewErrFromString("in_cidr: no address")
			}
			// One address, one spelling: v4-mapped, and no zone.
			return types.Bool(prefix.Contains(ip.Unmap().WithZone("")))
		})))
}
