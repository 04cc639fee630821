#!/bin/sh
# Print one strong password for Redis: 43 letters and digits, 256 bits of /dev/urandom.
# Letters and digits alone, so that it can stand in redis.conf, in a URL and in an environment file as it is.
#
#   (umask 077; scripts/generate_redis_password.sh > redis.password)
set -eu

LENGTH=43 # 43 characters out of 62 hold 256 bits (43 × log2 62 = 256.03)

# tr throws away what is no letter or digit, so that every one is equally likely; 512 bytes give about 124.
characters=
while [ "${#characters}" -lt "$LENGTH" ]; do
    characters=$characters$(head -c 512 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9')
done
printf '%s\n' "$characters" | cut -c "1-$LENGTH"
