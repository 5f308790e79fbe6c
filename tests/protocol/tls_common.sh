# Sourced by tests of TLS with clients that are not ours: certificates by certtool, keys by psktool.

command -v certtool >/dev/null || skip "certtool is not installed"

certificate_key() { # NAME
    (umask 077 && certtool --generate-privkey --key-type ecdsa --curve secp256r1 --outfile "$1.key" >/dev/null 2>&1)
}

# authority NAME: NAME.pem and NAME.key, of a CA.
authority() {
    certificate_key "$1"
    printf '%s\n' "cn = $1" ca cert_signing_key "expiration_days = 30" >template
    certtool --generate-self-signed --load-privkey "$1.key" --template template --outfile "$1.pem" >/dev/null 2>&1
}

# certificate NAME CA [LINE...]: NAME.pem and NAME.key, with lines of certtool's template.
certificate() {
    local name=$1 ca=$2
    shift 2
    certificate_key "$name"
    printf '%s\n' "cn = $name" "organization = Tarn Tests" "dns_name = localhost" "ip_address = 127.0.0.1" \
        signing_key "$@" >template
    grep -q expiration template || echo "expiration_days = 30" >>template
    certtool --generate-certificate --load-privkey "$name.key" --load-ca-certificate "$ca.pem" \
        --load-ca-privkey "$ca.key" --template template --outfile "$name.pem" >/dev/null 2>&1
}

# client_folder FOLDER CA [CERTIFICATE]: as libnbd and QEMU want to find a client's.
client_folder() {
    mkdir -p "$1"
    cp "$2.pem" "$1/ca-cert.pem"
    [ $# -lt 3 ] || { cp "$3.pem" "$1/client-cert.pem" && cp "$3.key" "$1/client-key.pem"; }
}

# A line NAME:KEY more in keys.psk.
key() {
    (umask 077 && printf '%s:%s\n' "$1" "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >>"${2:-keys.psk}")
}
