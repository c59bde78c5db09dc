# What a host is, as key=value lines. It changes nothing.
# $1 data folder, $2 binary, $3 unit file, $4 supervisor, $5 engine's port
say() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\r' '  ')"; }
has() { command -v "$1" >/dev/null 2>&1; }
sum() { [ -f "$1" ] && sha256sum "$1" 2>/dev/null | cut -d' ' -f1; }

echo orch-probe-begin
say time "$(date +%s)"
say os "$(uname -s)"
say arch "$(uname -m)"
say hostname "$(cat /proc/sys/kernel/hostname 2>/dev/null || uname -n)"
say machine "$(cat /etc/machine-id 2>/dev/null || cat /var/lib/dbus/machine-id 2>/dev/null)"
say boot "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"

if has ip; then
	addresses=$(ip -o addr show scope global 2>/dev/null | awk '$2 !~ /^(docker|br-|veth|orch)/ {split($4, a, "/"); print a[1]}')
else
	addresses=$(hostname -I 2>/dev/null)
fi
say addresses "$addresses"

if [ -d /run/systemd/system ]; then say init systemd
elif has rc-update && [ -d /etc/local.d ]; then say init openrc
elif has update-rc.d || has chkconfig; then say init sysv
elif has crontab; then say init cron
elif [ -f /etc/rc.local ]; then say init rc.local
else say init none; fi

if [ -f /sys/fs/cgroup/cgroup.controllers ]; then say cgroup v2
elif [ -d /sys/fs/cgroup/memory ] || [ -d /sys/fs/cgroup/cpu ]; then say cgroup v1
else say cgroup none; fi

for m in apt-get dnf yum zypper apk pacman; do has $m && say packages $m && break; done

if has docker; then
	v=$(timeout 10 docker version --format '{{.Server.Version}}' 2>&1)
	if [ $? = 0 ]; then say docker "$v"; else say docker_error "$v"; fi
elif [ -S /var/run/docker.sock ]; then
	v=
	has curl && v=$(curl -sf --max-time 10 --unix-socket /var/run/docker.sock http://docker/version | sed 's/.*"Version":"\([0-9][^"]*\)","ApiVersion.*/\1/')
	say docker "${v:-there}"
fi

up=$1
while [ ! -d "$up" ] && [ "$up" != / ] && [ -n "$up" ]; do up=$(dirname "$up"); done
say disk_kib "$(df -Pk "$up" 2>/dev/null | awk 'NR==2 {print $4}')"
say memory_kib "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo 2>/dev/null)"

hex=$(printf ':%04X' "$5")
if cat /proc/self/net/tcp /proc/self/net/tcp6 2>/dev/null | awk -v p="$hex" '$4 == "0A" && substr($2, length($2) - 4) == p {f = 1} END {exit !f}'; then
	say port taken
else
	say port free
fi

helpers=
for h in python3 perl nc bash curl timeout setsid sha256sum; do has $h && helpers="$helpers $h"; done
say helpers "$helpers"

say binary "$(sum "$2")"
say unit "$(sum "$3")"
say supervisor "$(sum "$4")"
[ -d "$1" ] && [ -n "$(ls -A "$1" 2>/dev/null)" ] && say data there
bin=$2
if [ ! -x "$bin" ]; then # removed, and still running?
	for p in /proc/[0-9]*; do
		case "$(tr '\0' ' ' <"$p/cmdline" 2>/dev/null)" in *" agent --dir $1 "*) bin=$p/exe; break ;; esac
	done
fi
if [ -x "$bin" ]; then
	say version "$("$bin" version 2>/dev/null | sed 's/^orch //')"
	if status=$(timeout 20 "$bin" host status --dir "$1" 2>/dev/null); then
		say status "$status"
	elif [ -d "$1" ] && [ -n "$(ls -A "$1" 2>/dev/null)" ]; then
		# What is there already is only read.
		say prepared "$(timeout 20 "$bin" host prepare --dir "$1" 2>/dev/null)"
	fi
fi
if [ -d /run/systemd/system ]; then
	say enabled "$(systemctl is-enabled orch.service 2>/dev/null)"
	say active "$(systemctl is-active orch.service 2>/dev/null)"
fi
[ -d "$1.lock" ] && say lock "$(cat "$1.lock/owner" 2>/dev/null)"
echo orch-probe-end
