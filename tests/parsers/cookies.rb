# The same as cookies.py, for Rack.
require 'json'
require 'rack/utils'

$stdin.each_line do |line|
  # As Puma hands it over.
  read = Rack::Utils.parse_cookies_header([line.strip].pack('H*').b)
  shown = read.to_h { |name, value| [name.unpack1('H*'), (value || '').unpack1('H*')] }
  puts JSON.generate({ rack: shown })
end
