#!/bin/sh
# Starts Grafana in its container: prepares the provisioning files, then runs Grafana.
#
# Grafana can read a contact point only from a file, and does not start if it has no address. So the files in this folder
# are added to the provisioning of the stack only if HAN_ALERT_WEBHOOK or HAN_ALERT_EMAIL is set. When both are empty again,
# what was added is removed, once. Contact points and policies that the owner made in Grafana stay as they are.
#
# Outside a container: GF_PATHS_PROVISIONING=… GF_PATHS_DATA=… start.sh grafana-server --homepath /usr/share/grafana
set -eu

here=$(cd "$(dirname "$0")" && pwd)
given=${GF_PATHS_PROVISIONING:-/etc/grafana/provisioning}
data=${GF_PATHS_DATA:-/var/lib/grafana}
kept="$data/han-alerts-to" # uids of what was added, one on each line
[ $# -gt 0 ] || set -- /run.sh

say() { printf 'han-exporter: %s\n' "$*" >&2; }
trimmed() { printf '%s' "$1" | tr -d '\r\n' | sed 's/^[[:space:]]*//; s/[[:space:]]*$//'; }

webhook=$(trimmed "${HAN_ALERT_WEBHOOK:-}")
email=$(trimmed "${HAN_ALERT_EMAIL:-}")
url=$(trimmed "${HAN_GRAFANA_URL:-}")

made=$(mktemp -d)
cp -R "$given/." "$made/"
chmod -R u+w "$made"
mkdir -p "$made/datasources" "$made/dashboards" "$made/alerting" "$made/notifiers" "$made/plugins" "$made/access-control"
wanted=""

add() { # add FILE UID
  cp "$here/$1.yaml" "$made/alerting/han-$1.yaml"
  wanted="$wanted $2"
}

# Links in messages begin with this. Grafana does not start if it is not an address.
root="http://localhost:${HAN_GRAFANA_PORT:-3000}/"
if printf '%s\n' "$url" | grep -Eq '^https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$'; then
  root=$url
elif [ -n "$url" ]; then
  say "HAN_GRAFANA_URL must be an address like http://192.168.1.20:3000; it is left out."
fi
export GF_SERVER_ROOT_URL="${GF_SERVER_ROOT_URL:-$root}"

case $webhook in
  "") ;;
  https://hooks.slack.com/?*)
    add to-slack han-webhook
    say "alerts go to Slack"
    ;;
  https://discord.com/api/webhooks/?* | https://*.discord.com/api/webhooks/?* | https://discordapp.com/api/webhooks/?*)
    add to-discord han-webhook
    say "alerts go to Discord"
    ;;
  http://?* | https://?*)
    add to-webhook han-webhook
    # Grafana would replace braces.
    webhook=$(printf '%s' "$webhook" | sed 's/{/%7B/g; s/}/%7D/g')
    rest=${webhook#*://}
    host=${rest%%[/?]*}
    host=${host##*@}
    case $host in
      ntfy.* | ntfy | ntfy:*)
        # ntfy 2.10 or later takes title and message from what Grafana sends; older ones show all of it.
        case $rest in
          *[?\&]tpl=* | *[?\&]template=*) ;;
          *\?*) webhook="$webhook&tpl=1&t=%7B%7B.title%7D%7D&m=%7B%7B.message%7D%7D" ;;
          *) webhook="$webhook?tpl=1&t=%7B%7B.title%7D%7D&m=%7B%7B.message%7D%7D" ;;
        esac
        say "alerts go to ntfy"
        ;;
      *) say "alerts go to the webhook" ;;
    esac
    ;;
  *) say "HAN_ALERT_WEBHOOK must begin with http:// or https://; no alert goes there." ;;
esac
export HAN_ALERT_URL="$webhook"

mail() { # sets up Grafana's SMTP; fails if something is missing
  host=$(trimmed "${HAN_ALERT_SMTP_HOST:-}")
  user=${HAN_ALERT_SMTP_USER:-}
  from=$(trimmed "${HAN_ALERT_SMTP_FROM:-}")
  case $email in
    ?*@?*) ;;
    *)
      say "HAN_ALERT_EMAIL is no address like owner@example.org; no alert goes by e-mail."
      return 1
      ;;
  esac
  if [ -z "$host" ]; then
    say "HAN_ALERT_EMAIL is set, but HAN_ALERT_SMTP_HOST is not, like smtp.example.org:587; no alert goes by e-mail."
    return 1
  fi
  case $host in
    *:*) ;;
    *) host="$host:587" ;;
  esac
  # Most servers accept only a sender that they know: the user, or else the receiver.
  [ -n "$from" ] || case $user in
    ?*@?*) from=$user ;;
    *) from=${email%%[,; ]*} ;;
  esac
  if ! printf '%s\n' "$from" | grep -Eq '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$'; then
    say "HAN_ALERT_SMTP_FROM is no address like han@example.org; no alert goes by e-mail."
    return 1
  fi
  export GF_SMTP_ENABLED=true GF_SMTP_HOST="$host" GF_SMTP_FROM_ADDRESS="$from" GF_SMTP_FROM_NAME="han-exporter"
  export HAN_ALERT_EMAIL="$email"
  if [ -n "$user" ]; then
    # Grafana replaces these by the values of the environment. A $ in a password would have a meaning if it were written
    # here. No password is sent unencrypted: port 465 uses TLS from the start, and STARTTLS is required on all others.
    export GF_SMTP_USER='$__env{HAN_ALERT_SMTP_USER}' GF_SMTP_PASSWORD='$__env{HAN_ALERT_SMTP_PASSWORD}'
    export HAN_ALERT_SMTP_USER="$user" HAN_ALERT_SMTP_PASSWORD="${HAN_ALERT_SMTP_PASSWORD:-}"
    export GF_SMTP_STARTTLS_POLICY=MandatoryStartTLS
  fi
}
if [ -n "$email" ] && mail; then
  add to-email han-email
  say "alerts go by e-mail"
fi

before=$(cat "$kept" 2>/dev/null || :)
if [ -n "$wanted" ]; then
  cp "$here/message.yaml" "$here/policy.yaml" "$made/alerting/"
fi
gone=""
for uid in $before; do
  case " $wanted " in
    *" $uid "*) ;;
    *) gone="$gone $uid" ;;
  esac
done
if [ -n "$gone" ]; then
  {
    printf 'apiVersion: 1\n'
    if [ -z "$wanted" ]; then
      printf 'resetPolicies: [1]\ndeleteTemplates:\n  - {orgId: 1, name: han}\n'
      say "alerts go nowhere any more: what was set up for them in Grafana is undone"
    fi
    printf 'deleteContactPoints:\n'
    for uid in $gone; do printf '  - {orgId: 1, uid: %s}\n' "$uid"; done
  } >"$made/alerting/han-gone.yaml"
fi

# Written down before Grafana can have read the files, and removed only after that: it answers when it has read them.
if [ -n "$wanted$gone" ]; then
  mkdir -p "$data"
  for uid in $wanted $gone; do printf '%s\n' "$uid"; done >"$kept.new"
  mv "$kept.new" "$kept"
fi
if [ -n "$gone" ]; then
  health="http://127.0.0.1:${GF_SERVER_HTTP_PORT:-3000}/api/health"
  answers() { wget -q -O /dev/null "$health" 2>/dev/null || curl -fs -o /dev/null "$health" 2>/dev/null; }
  (
    tries=0
    until answers; do
      tries=$((tries + 1))
      [ "$tries" -lt 300 ] || exit 0
      sleep 2
    done
    if [ -n "$wanted" ]; then
      for uid in $wanted; do printf '%s\n' "$uid"; done >"$kept.new"
      mv "$kept.new" "$kept"
    else
      rm -f "$kept"
    fi
  ) &
fi

GF_PATHS_PROVISIONING=$made
export GF_PATHS_PROVISIONING
exec "$@"
