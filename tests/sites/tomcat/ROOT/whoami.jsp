<%@ page contentType="application/json" session="false" trimDirectiveWhitespaces="true" %>
<% String user = request.getRemoteUser(); %>
{"user": <%= user == null ? "null" : "\"" + user + "\"" %>}
