#!/bin/sh
# What Grafana's container starts with: puts together what Grafana is to be provisioned with, then runs Grafana.
#
# Grafana reads a contact point from a file only, and does not start with one that has no address. So the files beside this
# one are added to the provisioning of the stack when HAN_ALERT_WEBHOOK or HAN_ALERT_EMAIL is set. When both are empty again
# what was added is undone, once; contact points and policies that the owner made in Grafana are left alone.
#
# Outside a container: GF_PATHS_PROVISIONING=… GF_PATHS_DATA=… start.sh grafana-server --homepath /usr/share/grafana
set -eu

here=$(cd "$(dirname "$0")" && pwd)
given=${GF_PATHS_PROVISIONING:-/etc/grafana/provisioning}
data=${GF_PATHS_DATA:-/var/lib/grafana}
kept="$data/han-alerts-to" # uids of what was added, one a line
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

# Links in messages begin with this. Grafana does not start with one that is none.
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
    # Grafana would fill in braces itself.
    webhook=$(printf '%s' "$webhook" | sed 's/{/%7B/g; s/}/%7D/g')
    rest=${webhook#*://}
    host=${rest%%[/?]*}
    host=${host##*@}
    case $host in
      ntfy.* | ntfy | ntfy:*)
        # ntfy 2.10 and later takes title and message out of what Grafana sends; else it shows all of it.
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

mail() { # sets Grafana's SMTP up; fails when something is missing
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
  # Most servers only take a sender that they know: the user, or else the receiver.
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
    # Grafana fills these in; written out, a $ in a password would mean something. No password goes out in the clear: port
    # 465 is TLS from the start, and on every other port it is asked for.
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

# Remembered before Grafana can have taken it over, and forgotten only once it has: it answers when it has read the files.
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
