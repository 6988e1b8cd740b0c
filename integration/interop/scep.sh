#!/usr/bin/env bash
# A SCEP client of nothing but openssl and curl. openssl cannot add signed
# attributes of its own, so the SignedData is put together here, TLV by TLV:
# every byte is in view, which is what makes it useful against a gateway.
#
# usage: scep.sh URL CHALLENGE SUBJECT FOLDER [-san DNSNAME] [-cipher aes-128-cbc|aes-256-cbc|des-ede3-cbc] [-get] [-type 19]
#   [-signer CERTIFICATE KEY]: a certificate to be renewed signs, no self-signed one
#   [-poll]: asks after the last request of FOLDER, with messageType 20; CHALLENGE and SUBJECT are not looked at
# Writes FOLDER/cert.pem. Exit 0: issued; 2: FAILURE; 3: PENDING; 1: anything else.
set -euo pipefail

url=$1 challenge=$2 subject=$3 dir=$4
shift 4
cipher=aes-128-cbc method=post type=19 san= signer= signer_key= poll=
while [ $# -gt 0 ]; do
  case $1 in
    -san) san=$2; shift ;;
    -cipher) cipher=$2; shift ;;
    -type) type=$2; shift ;;
    -signer) signer=$(realpath "$2") signer_key=$(realpath "$3"); shift 2 ;;
    -poll) poll=yes type=20 ;;
    -get) method=get ;;
    *) echo "scep.sh: unknown option $1" >&2; exit 1 ;;
  esac
  shift
done
mkdir -p "$dir"
cd "$dir"
fail() { echo "scep.sh: $1" >&2; exit 1; }
fetch() { curl --silent --show-error --max-time 60 "$@"; }

# DER, in hex.
hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }
ascii() { printf %s "$1" | od -An -v -tx1 | tr -d ' \n'; }
binary() { printf "$(printf %s "$1" | sed 's/../\\x&/g')"; }
tlv() { # tag, content
  local n=$((${#2} / 2))
  if [ $n -lt 128 ]; then printf '%s%02x%s' "$1" $n "$2"
  elif [ $n -lt 256 ]; then printf '%s81%02x%s' "$1" $n "$2"
  else printf '%s82%04x%s' "$1" $n "$2"; fi
}
scep() { tlv 06 "6086480186f8450109$1"; } # 2.16.840.1.113733.1.9.x
attribute() { tlv 30 "$1$(tlv 31 "$2")"; }
sequence() { # file, n: the nth SEQUENCE directly inside of what a certificate or PKCS#10 signs
  local line offset lengths
  line=$(openssl asn1parse -inform DER -in "$1" | awk -v n="$2" '/:d=2 .*SEQUENCE/ {if (++i == n) print}')
  offset=$(printf %s "$line" | cut -d: -f1 | tr -d ' ')
  lengths=$(printf %s "$line" | sed 's/.*hl=\([0-9]*\) l= *\([0-9]*\).*/\1 + \2/')
  hex "$1" | cut -c$((offset * 2 + 1))-$(((offset + lengths) * 2))
}

# The RA certificate that encrypts, the one that signs, and the CA, by their usage.
fetch "$url?operation=GetCACert" -o bundle.p7b
openssl pkcs7 -inform DER -in bundle.p7b -print_certs | awk '/BEGIN/{n++} n{print > ("bundle-" n ".pem")}'
for c in bundle-*.pem; do
  text=$(openssl x509 -in "$c" -noout -text)
  case $text in
    *CA:TRUE*) cp "$c" ca.pem ;;
    *"Key Encipherment"*) cp "$c" ra-encryption.pem ;;
    *"Digital Signature"*) cp "$c" ra-signing.pem ;;
  esac
done
[ -f ra-encryption.pem ] || fail "no encryption certificate in GetCACert"

# Key, PKCS#10, self-signed certificate of the same key. A poll has those of the request.
if [ -z "$poll" ]; then
  cat > req.cnf <<EOF
[req]
prompt = no
string_mask = nombstr
distinguished_name = dn
${challenge:+attributes = attributes}
[dn]
$(printf %s "$subject" | tr / '\n' | sed '/^$/d')
[attributes]
challengePassword = $challenge
[extensions]
keyUsage = critical,digitalSignature,keyEncipherment
${san:+subjectAltName = DNS:$san}
EOF
  openssl genrsa -out key.pem 2048 2>genrsa.log
  # With -subj, openssl would leave the attributes out.
  openssl req -new -config req.cnf -reqexts extensions -key key.pem -sha256 -outform DER -out req.der
  if [ -n "$signer" ]; then
    cp "$signer" signer.pem
    cp "$signer_key" signer.key
  else
    openssl req -x509 -key key.pem -subj "/CN=scep.sh" -days 2 -sha256 -out signer.pem
    cp key.pem signer.key
  fi
  openssl x509 -in signer.pem -outform DER -out signer.der
  cp req.der content.der
else
  [ -f req.der ] || fail "no request in the folder"
  # The CA's subject is its certificate's fourth, that of a PKCS#10 its first.
  openssl x509 -in ca.pem -outform DER -out ca.der
  binary "$(tlv 30 "$(sequence ca.der 4)$(sequence req.der 1)")" > content.der
fi

# EnvelopedData, then the signed attributes over its digest.
openssl cms -encrypt -binary -"$cipher" -in content.der -outform DER -out envelope.der ra-encryption.pem
transaction=$(openssl rsa -in key.pem -pubout -outform DER 2>/dev/null | openssl dgst -sha1 -r | cut -d' ' -f1 | tr a-f A-F)
data=$(tlv 06 2a864886f70d010701)
digest=$(openssl dgst -sha256 -binary envelope.der | od -An -v -tx1 | tr -d ' \n')
nonce=$(openssl rand -hex 16)
attrs=$(printf '%s\n' \
  "$(attribute "$(scep 02)" "$(tlv 13 "$(ascii "$type")")")" \
  "$(attribute "$(scep 05)" "$(tlv 04 "$nonce")")" \
  "$(attribute "$(scep 07)" "$(tlv 13 "$(ascii "$transaction")")")" \
  "$(attribute "$(tlv 06 2a864886f70d010903)" "$data")" \
  "$(attribute "$(tlv 06 2a864886f70d010904)" "$(tlv 04 "$digest")")" | LC_ALL=C sort | tr -d '\n')
binary "$(tlv 31 "$attrs")" > attrs.der
openssl dgst -sha256 -sign signer.key -out signature.bin attrs.der

# SignedData. The issuer and serial of the signer's certificate name it.
sha256=$(tlv 30 "$(tlv 06 608648016503040201)0500")
rsa=$(tlv 30 "$(tlv 06 2a864886f70d010101)0500")
issuer=$(sequence signer.der 2)
serial=$(openssl x509 -in signer.pem -noout -serial | cut -d= -f2 | tr A-F a-f)
case $serial in [89a-f]*) serial=00$serial ;; esac
info=$(tlv 30 "020101$(tlv 30 "$issuer$(tlv 02 "$serial")")$sha256$(tlv a0 "$attrs")$rsa$(tlv 04 "$(hex signature.bin)")")
content=$(tlv 30 "$data$(tlv a0 "$(tlv 04 "$(hex envelope.der)")")")
signed=$(tlv 30 "020101$(tlv 31 "$sha256")$content$(tlv a0 "$(hex signer.der)")$(tlv 31 "$info")")
binary "$(tlv 30 "$(tlv 06 2a864886f70d010702)$(tlv a0 "$signed")")" > message.der

if [ $method = get ]; then
  message=$(openssl base64 -A -in message.der | sed 's/+/%2B/g; s,/,%2F,g; s/=/%3D/g')
  status=$(fetch -o reply.der -w '%{http_code} %{content_type}' "$url?operation=PKIOperation&message=$message")
else
  status=$(fetch -o reply.der -w '%{http_code} %{content_type}' -H 'Content-Type: application/x-pki-message' -H 'Expect:' --data-binary @message.der "$url?operation=PKIOperation")
fi
[ "$status" = "200 application/x-pki-message" ] || { echo "HTTP $status"; exit 1; }

# One of the bundle signed it; what its key usage allows is not asked.
cat bundle-*.pem > bundle.pem
openssl cms -verify -noverify -binary -inform DER -in reply.der -certfile bundle.pem -out reply-content.der 2>verify.log || fail "the reply's signature does not verify"
value() { openssl asn1parse -inform DER -in reply.der | awk -v oid="$1" 'found && /PRINTABLESTRING/ {sub(/.*:/, ""); print; exit} index($0, ":" oid) {found = 1}'; }
pki_status=$(value 2.16.840.1.113733.1.9.3)
echo "pkiStatus=$pki_status failInfo=$(value 2.16.840.1.113733.1.9.4)"
case $pki_status in
  0) ;;
  2) exit 2 ;;
  3) exit 3 ;;
  *) fail "no pkiStatus in the reply" ;;
esac
openssl cms -decrypt -binary -inform DER -in reply-content.der -recip signer.pem -inkey signer.key -out certs.p7b
openssl pkcs7 -inform DER -in certs.p7b -print_certs | openssl x509 -out cert.pem
openssl x509 -in cert.pem -noout -subject
