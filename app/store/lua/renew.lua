#!lua flags=allow-oom
-- Renews a lease where the store is full, and refuses SET: a runner that waits for its model lives all the same.
--
-- KEYS  lease
-- ARGV  runner, how long it holds in ms
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
